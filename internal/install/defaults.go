// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// defaultsLimit bounds awaitDefaults. The API server looks every five
	// seconds for the published schemas of new kinds.
	defaultsLimit = 30 * time.Second
	probeName     = "pinnace-install-probe"
)

// probes are objects that config/policy/defaults.yaml completes, one of each
// group, with the field that it fills in. They are dry runs: nothing is stored.
var probes = []struct {
	resource schema.GroupVersionResource
	kind     string
	spec     map[string]any
	filled   []string
}{
	{schema.GroupVersionResource{Group: "core.pinnace.dev", Version: "v1", Resource: "services"}, "Service",
		map[string]any{"ports": []any{map[string]any{"port": int64(80)}}}, []string{"spec", "internalTrafficPolicy"}},
	{schema.GroupVersionResource{Group: "apps.pinnace.dev", Version: "v1", Resource: "deployments"}, "Deployment",
		map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"app": probeName}},
			"strategy": map[string]any{"type": "RollingUpdate"},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": probeName}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "a", "image": "a"}}},
			},
		}, []string{"spec", "strategy", "rollingUpdate"}},
	{schema.GroupVersionResource{Group: "batch.pinnace.dev", Version: "v1", Resource: "jobs"}, "Job",
		map[string]any{"template": map[string]any{"spec": map[string]any{
			"restartPolicy": "Never", "containers": []any{map[string]any{"name": "a", "image": "a"}},
		}}}, []string{"spec", "backoffLimit"}},
	{schema.GroupVersionResource{Group: "networking.pinnace.dev", Version: "v1", Resource: "networkpolicies"}, "NetworkPolicy",
		map[string]any{"podSelector": map[string]any{}}, []string{"spec", "policyTypes"}},
}

// awaitDefaults waits until the mutating policies act on every group. Before,
// the API server answers 503 to an object that one of them would complete, or
// leaves it incomplete; a user's first apply must meet neither.
func (i *installer) awaitDefaults(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range probes {
		group.Go(func() error {
			object := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": p.resource.GroupVersion().String(), "kind": p.kind,
				"metadata": map[string]any{"name": probeName}, "spec": p.spec,
			}}
			var last error
			err := wait.PollUntilContextTimeout(ctx, 4*pause, defaultsLimit, true, func(ctx context.Context) (bool, error) {
				made, err := i.objects.Resource(p.resource).Namespace(metav1.NamespaceDefault).
					Create(ctx, object.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if last = err; err != nil {
					// An object of that name, however odd, says that the kind is usable.
					return apierrors.IsAlreadyExists(err), nil
				}
				_, filled, err := unstructured.NestedFieldNoCopy(made.Object, p.filled...)
				return filled, err
			})
			if err != nil {
				return errors.Join(fmt.Errorf("waiting for the defaults of %s to be filled in: %w", p.resource.GroupResource(), err), last)
			}
			return nil
		})
	}
	return group.Wait()
}
