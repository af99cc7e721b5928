// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestManagerManifest: what is applied in a cluster is what upstream's types hold, its arguments are the manager's, and the
// Service finds the pods.
func TestManagerManifest(t *testing.T) {
	data, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(data, []byte("\n---\n"))
	var deployment appsv1.Deployment
	var service corev1.Service
	if len(documents) != 2 {
		t.Fatalf("got %d documents, want a Deployment and a Service", len(documents))
	}
	if err := yaml.UnmarshalStrict(documents[0], &deployment); err != nil {
		t.Error(err)
	}
	if err := yaml.UnmarshalStrict(documents[1], &service); err != nil {
		t.Error(err)
	}
	args := deployment.Spec.Template.Spec.Containers[0].Args
	if command := newManagerCommand(); args[0] != command.Name() {
		t.Errorf("it runs %q", args[0])
	} else if err := command.ParseFlags(args[1:]); err != nil {
		t.Error(err)
	}
	for key, value := range service.Spec.Selector {
		if deployment.Spec.Template.Labels[key] != value {
			t.Errorf("the Service's %s=%s isn't on the pods", key, value)
		}
	}
}
