// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinnace-dev/pinnace/controllers/agent/keep"
)

func TestKeepPolicies(t *testing.T) {
	images, logs, err := newAgentKeepOptions().policies()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keep.ImagePolicy{High: 85, Low: 80, MinimumAge: 2 * time.Minute}, images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(keep.LogPolicy{MaxSize: 10 << 20, MaxFiles: 5}, logs); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	for name, c := range map[string]struct {
		change func(o *AgentKeepOptions)
		says   string
	}{
		"no size":                 {func(o *AgentKeepOptions) { o.LogMaxSize = "much" }, "--container-log-max-size"},
		"a size of nothing":       {func(o *AgentKeepOptions) { o.LogMaxSize = "0" }, "--container-log-max-size"},
		"one file":                {func(o *AgentKeepOptions) { o.LogMaxFiles = 1 }, "--container-log-max-files"},
		"low above high":          {func(o *AgentKeepOptions) { o.ImageGCLow = 90 }, "--image-gc-low-threshold"},
		"more than the whole":     {func(o *AgentKeepOptions) { o.ImageGCHigh = 101 }, "--image-gc-high-threshold"},
		"never rotated":           {func(o *AgentKeepOptions) { o.LogMaxSize = "-1" }, ""},
		"images are never freed":  {func(o *AgentKeepOptions) { o.ImageGCHigh = 100 }, ""},
		"images may go very soon": {func(o *AgentKeepOptions) { o.ImageMinimumAge = 0 }, ""},
	} {
		o := newAgentKeepOptions()
		c.change(&o)
		_, _, err := o.policies()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
