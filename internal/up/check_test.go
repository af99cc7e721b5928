// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"strings"
	"testing"
)

// TestPodCIDR: what is asked for is what runs, though it be another runtime's default.
func TestPodCIDR(t *testing.T) {
	for _, tc := range []struct{ runtime, asked, want string }{
		{RuntimeSimulated, "", SimulatedPodCIDR},
		{RuntimeSimulated, DefaultPodCIDR, DefaultPodCIDR},
		{RuntimeSimulated, "10.100.0.0/16", "10.100.0.0/16"},
		{RuntimeContainerd, "", DefaultPodCIDR},
		{RuntimeContainerd, SimulatedPodCIDR, SimulatedPodCIDR},
	} {
		o := NewOptions()
		o.Runtime, o.PodCIDR = tc.runtime, tc.asked
		if err := o.complete(); err != nil && tc.runtime == RuntimeSimulated {
			t.Error(err) // With containerd it may lack root here.
		}
		if o.PodCIDR != tc.want {
			t.Errorf("%s with --pod-cidr %q: the network is %s, want %s", tc.runtime, tc.asked, o.PodCIDR, tc.want)
		}
	}
}

// TestComplete: what can't work is refused by the name of its flag before anything starts.
func TestComplete(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		says   []string
	}{
		"the defaults":      {func(*Options) {}, nil},
		"as many as can be": {func(o *Options) { o.Nodes = MaxSimulatedNodes }, nil},
		"no data folder":    {func(o *Options) { o.DataDir = "" }, []string{"--data-dir", "empty"}},
		"no assets":         {func(o *Options) { o.AssetsDir = "" }, []string{"--assets-dir", "empty"}},
		"a strange runtime": {func(o *Options) { o.Runtime = "docker" }, []string{"docker", RuntimeContainerd, RuntimeSimulated}},
		"no node":           {func(o *Options) { o.Nodes = 0 }, []string{"--nodes 0", "1 to 1000"}},
		"too many nodes":    {func(o *Options) { o.Runtime, o.Nodes = RuntimeContainerd, 17 }, []string{"--nodes 17", "1 to 16"}},
		"two kinds of runtime": {
			func(o *Options) { o.RuntimeEndpoint = "unix:///run/c.sock" }, []string{"--runtime-endpoint", "--runtime simulated"},
		},
		"port 0":             {func(o *Options) { o.APIPort = 0 }, []string{"--api-port 0", "65535"}},
		"a port too high":    {func(o *Options) { o.RegistryPort = 70000 }, []string{"--registry-port 70000", "65535"}},
		"one port for both":  {func(o *Options) { o.RegistryPort = o.APIPort }, []string{"--api-port", "--registry-port", "6443"}},
		"no network":         {func(o *Options) { o.PodCIDR = "10.244/16" }, []string{"--pod-cidr", "10.244.0.0/16"}},
		"an address":         {func(o *Options) { o.ServiceCIDR = "10.97.3.0/16" }, []string{"--service-cidr", "10.97.0.0/16"}},
		"another family":     {func(o *Options) { o.PodCIDR = "fd00::/48" }, []string{"--pod-cidr", "IPv4"}},
		"one address":        {func(o *Options) { o.ServiceCIDR = "10.97.0.1/32" }, []string{"--service-cidr", "/30"}},
		"networks overlap":   {func(o *Options) { o.ServiceCIDR = "10.128.0.0/24" }, []string{"--pod-cidr", "--service-cidr", "overlap"}},
		"networks too small": {func(o *Options) { o.Nodes, o.PodCIDR = 257, DefaultPodCIDR }, []string{"--pod-cidr 10.244.0.0/16", "257 nodes"}},
		"less than a node's": {func(o *Options) { o.PodCIDR = "10.244.0.0/25" }, []string{"--pod-cidr 10.244.0.0/25", "1 node"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			o.Runtime, o.DataDir = RuntimeSimulated, t.TempDir()
			tc.change(&o)
			err := o.complete()
			if tc.says == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			for _, part := range tc.says {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not say %q", err, part)
				}
			}
		})
	}
}
