// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// TestKubeconfigCompression: the processes of this machine ask for nothing compressed; a person's kubeconfig may be used from afar.
func TestKubeconfigCompression(t *testing.T) {
	for _, embed := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		config := &rest.Config{Host: "https://127.0.0.1:6443", DisableCompression: true}
		if err := writeKubeconfig(path, "someone", config, embed); err != nil {
			t.Fatal(err)
		}
		got, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if got.DisableCompression == embed {
			t.Errorf("embedded: %v: the kubeconfig says DisableCompression: %v", embed, got.DisableCompression)
		}
	}
}
