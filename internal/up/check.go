// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
)

// complete fills in what depends on other options, makes paths absolute, and checks what can be checked before anything starts.
func (o *Options) complete() error {
	for _, dir := range []struct {
		flag  string
		value *string
	}{{"--data-dir", &o.DataDir}, {"--assets-dir", &o.AssetsDir}} {
		if *dir.value == "" { // An unset variable would else mean the working folder.
			return fmt.Errorf("%s is empty: name a folder, or leave the flag out", dir.flag)
		}
		abs, err := filepath.Abs(*dir.value)
		if err != nil {
			return fmt.Errorf("finding the folder %s: %w", *dir.value, err)
		}
		*dir.value = abs
	}
	if o.PodCIDR == "" {
		o.PodCIDR = DefaultPodCIDR
		if !o.real() {
			o.PodCIDR = SimulatedPodCIDR
		}
	}
	for _, check := range []func() error{o.checkNodes, o.checkPorts, o.checkNetworks, o.checkMachine} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) checkNodes() error {
	if o.Runtime != RuntimeContainerd && o.Runtime != RuntimeSimulated {
		return fmt.Errorf("--runtime %q is unknown: choose %s or %s", o.Runtime, RuntimeContainerd, RuntimeSimulated)
	}
	limit := MaxNodes
	if !o.real() {
		limit = MaxSimulatedNodes
	}
	if o.Nodes < 1 || o.Nodes > limit {
		return fmt.Errorf("--nodes %d is out of range: 1 to %d with --runtime %s", o.Nodes, limit, o.Runtime)
	}
	if o.RuntimeEndpoint != "" && (!o.real() || o.Nodes > 1) {
		return errors.New("--runtime-endpoint names the one runtime of one node: leave out --nodes and --runtime simulated")
	}
	return nil
}

// checkPorts refuses 0 too, which other rooms would take for their default.
func (o *Options) checkPorts() error {
	for _, port := range []struct {
		flag  string
		value int
	}{{"--api-port", o.APIPort}, {"--registry-port", o.RegistryPort}} {
		if port.value < 1 || port.value > 65535 {
			return fmt.Errorf("%s %d is not between 1 and 65535", port.flag, port.value)
		}
	}
	if o.APIPort == o.RegistryPort {
		return fmt.Errorf("--api-port and --registry-port are both %d: give them different ports", o.APIPort)
	}
	return nil
}

// nodeBits is the length of a node's part of the pod network, which the manager cuts.
const nodeBits = 24

func (o *Options) checkNetworks() error {
	pods, err := parseNetwork("--pod-cidr", o.PodCIDR)
	if err != nil {
		return err
	}
	services, err := parseNetwork("--service-cidr", o.ServiceCIDR)
	if err != nil {
		return err
	}
	if pods.Overlaps(services) {
		return fmt.Errorf("--pod-cidr %s and --service-cidr %s overlap: choose networks that have no address in common", pods, services)
	}
	if room := 1 << max(0, nodeBits-pods.Bits()); pods.Bits() > nodeBits || room < o.Nodes {
		return fmt.Errorf("--pod-cidr %s has no /%d for each of %s: choose a larger network", pods, nodeBits, countNodes(o.Nodes))
	}
	return nil
}

// parseNetwork takes IPv4 alone: the rules for services that agents write are of that family.
func parseNetwork(flag, text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%s %q is no network: give one such as 10.244.0.0/16", flag, text)
	}
	if !prefix.Addr().Is4() || prefix.Bits() < 8 || prefix.Bits() > 30 {
		return prefix, fmt.Errorf("%s %s is no IPv4 network between /8 and /30: give one such as 10.244.0.0/16", flag, prefix)
	}
	if prefix != prefix.Masked() {
		return prefix, fmt.Errorf("%s %s names an address within the network %s: give the network itself", flag, prefix, prefix.Masked())
	}
	return prefix, nil
}

func (o *Options) checkMachine() error {
	if !o.real() {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("running containers needs root: start it with sudo, or simulate the nodes with --runtime simulated")
	}
	for program, pkg := range map[string]string{"nft": "nftables", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("the program %s is missing: install it with `apt-get install %s`", program, pkg)
		}
	}
	return nil
}

// machineLock is held by who runs containers here.
const machineLock = "/run/pinnace/lock"

// holdMachine keeps a second run with another data folder out: bridge, packet rules and routes of the machine's own network would be
// taken from the first.
func holdMachine() (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(machineLock), 0o711); err != nil {
		return nil, fmt.Errorf("making the folder of locks: %w", err)
	}
	release, err = controlplane.Hold(machineLock)
	var held *controlplane.HeldError
	if errors.As(err, &held) {
		return nil, fmt.Errorf("another process%s runs containers on this machine, and they share its network: stop it, or simulate the nodes with --runtime simulated", held.Holder)
	}
	if err != nil {
		return nil, fmt.Errorf("locking this machine's network: %w", err)
	}
	return release, nil
}
