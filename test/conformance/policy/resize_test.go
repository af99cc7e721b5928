// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// TestResourcesChangeByTheManagerAlone: who may update a pod can't change its resources; the manager, which serves the subresource resize,
// can, and only cpu and memory.
func TestResourcesChangeByTheManagerAlone(t *testing.T) {
	e := start(t)
	person, _ := as(t, e.Config, "")
	manager, _ := as(t, e.Config, "system:pinnace:manager", "system:masters")
	p := pod(e.Namespace(t), "resized", "")
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceEphemeralStorage: resource.MustParse("1Gi")}
	if err := person.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	change := func(c client.Client, do func(*pcorev1.Pod)) error {
		changed := p.DeepCopy()
		do(changed)
		return c.Patch(t.Context(), changed, client.MergeFrom(p), client.DryRunAll)
	}
	cpu := func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("2")
	}
	whole := func(p *pcorev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}}
	}
	disk := func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceEphemeralStorage] = resource.MustParse("2Gi")
	}
	gone := func(p *pcorev1.Pod) { delete(p.Spec.Containers[0].Resources.Requests, corev1.ResourceEphemeralStorage) }
	eventually(t, func() error {
		if err := change(person, cpu); err == nil || !strings.Contains(err.Error(), "use its subresource resize") {
			return fmt.Errorf("a person changes cpu: %w", err)
		}
		return nil
	})
	for what, test := range map[string]struct {
		who  client.Client
		do   func(*pcorev1.Pod)
		want string
	}{
		"a person changes the whole pod's": {person, whole, "use its subresource resize"},
		"a person changes an image":        {person, func(p *pcorev1.Pod) { p.Spec.Containers[0].Image = "other:1" }, ""},
		"the manager changes cpu":          {manager, cpu, ""},
		"the manager changes the whole":    {manager, whole, ""},
		"the manager changes disk":         {manager, disk, "only cpu and memory"},
		"the manager takes disk away":      {manager, gone, "only cpu and memory"},
	} {
		err := change(test.who, test.do)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
	}
}
