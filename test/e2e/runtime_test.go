// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/test/node"
)

// testRuntimeThere runs the sample on a container runtime that is there already and in which somebody else's pod runs, which stays.
func testRuntimeThere(t *testing.T) {
	m := realMachine(t)
	// The first node's part of the pod network, for its pods have their addresses from the runtime's own configuration.
	n, err := node.Start(t.Context(), node.Options{Assets: m.Path("bin/assets"), PodCIDR: "10.244.0.0/24", Bridge: "pne2e0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping the runtime: %v", err)
		}
	})
	if _, err := n.Images.Load(t.Context(), m.Path("bin/images/hello.tar")); err != nil {
		t.Fatal(err)
	}
	other, err := n.CRI.RunPodSandbox(t.Context(), &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "other", Namespace: "others", Uid: "others-own"},
	}, "")
	if err != nil {
		t.Fatal(err)
	}

	start(t, m, "--runtime-endpoint", n.Config.Endpoint())
	deploySample(t, m)
	checkAddress(t, m)
	checkNothingLeft(t, m)

	sandboxes, err := n.CRI.ListPodSandbox(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(sandboxes) != 1 || sandboxes[0].Id != other || sandboxes[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the runtime has %v, want the other pod %s alone, running", sandboxes, other)
	}
}
