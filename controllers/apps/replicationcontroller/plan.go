// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicationcontroller

import (
	"k8s.io/apimachinery/pkg/labels"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// want is the wanted number of pods.
func want(rc *pcorev1.ReplicationController) int32 {
	if rc.Spec.Replicas == nil {
		return 1
	}
	return *rc.Spec.Replicas
}

// selectorOf is the selector, or the template's labels when there is none.
func selectorOf(rc *pcorev1.ReplicationController) labels.Selector {
	set := rc.Spec.Selector
	if len(set) == 0 && rc.Spec.Template != nil {
		set = rc.Spec.Template.Labels
	}
	return labels.SelectorFromSet(set)
}

// makePlan says which pods to make or delete. One that is being deleted leaves its pods to garbage collection; without a template none can
// be made.
func makePlan(s *scope) workload.Change {
	if s.Owner.DeletionTimestamp != nil || s.Owner.Spec.Template == nil {
		return workload.Change{}
	}
	return workload.Replicas{
		Owner: s.Owner.Name, UID: s.Owner.UID, Want: want(s.Owner), Pods: s.Pods, Foreign: s.Foreign, Colocated: s.Colocated, Now: s.Now,
	}.Plan()
}
