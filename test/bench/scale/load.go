// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
)

// manifest is the same Deployment for every side, by the suffix rule. It asks for no service account's token, so that
// no side has to see to volumes.
const manifest = `{
 "apiVersion": "apps%[1]s/v1", "kind": "Deployment", "metadata": {"name": %[2]q, "namespace": "bench"},
 "spec": {
  "replicas": %[3]d, "selector": {"matchLabels": {"app": %[2]q}},
  "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%%", "maxUnavailable": "25%%"}},
  "template": {
   "metadata": {"labels": {"app": %[2]q}},
   "spec": {
    "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
    "containers": [{
     "name": "server", "image": "registry.example/server:v1", "imagePullPolicy": "IfNotPresent",
     "ports": [{"containerPort": 8080}],
     "env": [{"name": "VERSION", "value": "1"}],
     "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
    }]
   }
  }
 }
}`

// nextVersion starts a rolling update.
const nextVersion = `{"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "registry.example/server:v2", "imagePullPolicy": "IfNotPresent",
 "ports": [{"containerPort": 8080}], "env": [{"name": "VERSION", "value": "2"}],
 "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}}]}}}}`

func (d *side) group(name string) string {
	if name == "" && d.suffix != "" {
		name = "core"
	}
	return name + d.suffix
}

func (d *side) resource(group, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: d.group(group), Version: "v1", Resource: resource}
}

// awaitNodes waits until all nodes are Ready and without taints.
func (d *side) awaitNodes() error {
	c, err := dynamic.NewForConfig(d.admin)
	if err != nil {
		return err
	}
	ready := 0
	err = wait.PollUntilContextTimeout(d.ctx, 250*time.Millisecond, 3*time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := c.Resource(d.resource("", "nodes")).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, nil //nolint:nilerror // It may not be served yet; the timeout ends the wait.
		}
		ready = 0
		for i := range list.Items {
			node := &list.Items[i]
			taints, _, _ := unstructured.NestedSlice(node.Object, "spec", "taints")
			cidr, _, _ := unstructured.NestedString(node.Object, "spec", "podCIDR")
			if len(taints) == 0 && cidr != "" && conditionIs(node, "Ready", "True") {
				ready++
			}
		}
		return ready == d.nodes, nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d nodes became ready: %w", ready, d.nodes, err)
	}
	namespaces := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	namespace := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "bench"}}}
	if _, err := c.Resource(namespaces).Create(d.ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the namespace: %w", err)
	}
	// Native pods are refused until this is there.
	accounts := schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	return wait.PollUntilContextTimeout(d.ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := c.Resource(accounts).Namespace("bench").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
}

func conditionIs(object *unstructured.Unstructured, kind, status string) bool {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			return c["status"] == status
		}
	}
	return false
}

// deployment follows one Deployment as a person would who watches it.
type deployment struct {
	d        *side
	name     string
	replicas int
	client   dynamic.ResourceInterface
	// generation is the one that is waited for.
	generation int64
}

func (d *side) deployment(name string, replicas int) (*deployment, error) {
	c, err := dynamic.NewForConfig(d.admin)
	if err != nil {
		return nil, err
	}
	return &deployment{d: d, name: name, replicas: replicas, client: c.Resource(d.resource("apps", "deployments")).Namespace("bench")}, nil
}

// create makes the Deployment and returns how long it took until all its pods were Ready.
func (y *deployment) create() (time.Duration, error) {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(fmt.Appendf(nil, manifest, y.d.suffix, y.name, y.replicas)); err != nil {
		return 0, err
	}
	return y.timed(func() (*unstructured.Unstructured, error) {
		return y.client.Create(y.d.ctx, object, metav1.CreateOptions{})
	})
}

// update changes the template and returns how long it took until the rollout was complete, as `kubectl rollout status` has it.
func (y *deployment) update() (time.Duration, error) {
	return y.timed(func() (*unstructured.Unstructured, error) {
		return y.client.Patch(y.d.ctx, y.name, types.MergePatchType, []byte(nextVersion), metav1.PatchOptions{})
	})
}

func (y *deployment) timed(start func() (*unstructured.Unstructured, error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(y.d.ctx, 10*time.Minute)
	defer cancel()
	watch, err := y.client.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + y.name})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	began := time.Now()
	written, err := start()
	if err != nil {
		return 0, err
	}
	y.generation = written.GetGeneration()
	last := "nothing yet"
	for event := range watch.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return 0, fmt.Errorf("the watch ended: %v", event.Object)
		}
		if y.complete(object) {
			return time.Since(began), nil
		}
		last = fmt.Sprint(object.Object["status"])
	}
	return 0, fmt.Errorf("the Deployment didn't become complete; its last status was %s", last)
}

// complete says whether exactly the wanted pods are there, of the present template, and Ready.
func (y *deployment) complete(object *unstructured.Unstructured) bool {
	number := func(path ...string) int64 {
		n, _, _ := unstructured.NestedInt64(object.Object, path...)
		return n
	}
	if number("status", "observedGeneration") < y.generation {
		return false
	}
	for _, count := range []string{"replicas", "updatedReplicas", "readyReplicas", "availableReplicas"} {
		if number("status", count) != int64(y.replicas) {
			return false
		}
	}
	return true
}

// awaitPods waits until so many pods are left: those that a rollout replaced end a little after it. It asks for one pod and the number of
// the others, which costs the API server next to nothing.
func (d *side) awaitPods(want int) error {
	c, err := metadata.NewForConfig(d.admin)
	if err != nil {
		return err
	}
	have := 0
	err = wait.PollUntilContextTimeout(d.ctx, 500*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := c.Resource(d.resource("", "pods")).Namespace("bench").List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return false, err
		}
		have = len(list.Items)
		if list.RemainingItemCount != nil {
			have += int(*list.RemainingItemCount)
		}
		return have == want, nil
	})
	if err != nil {
		return fmt.Errorf("%d pods are there, not %d: %w", have, want, err)
	}
	return nil
}

// isLease says whether a count is of the nodes' heartbeats, which have nothing to do with the load.
func isLease(what string) bool { return strings.Contains(what, " leases") }
