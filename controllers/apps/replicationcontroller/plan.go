// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicationcontroller

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// scope is all that one look at a ReplicationController knows.
type scope struct {
	rc       *pcorev1.ReplicationController
	selector labels.Selector
	// pods are its own, ended and deleted ones included.
	pods []*pcorev1.Pod
	// foreign are names that pods of others hold.
	foreign map[string]bool
	now     time.Time
}

// want is the wanted number of pods. Without a template none can be made.
func (s *scope) want() int32 {
	if s.rc.Spec.Replicas == nil {
		return 1
	}
	return *s.rc.Spec.Replicas
}

// selectorOf is the selector, or the template's labels when there is none.
func selectorOf(rc *pcorev1.ReplicationController) labels.Selector {
	set := rc.Spec.Selector
	if len(set) == 0 && rc.Spec.Template != nil {
		set = rc.Spec.Template.Labels
	}
	return labels.SelectorFromSet(set)
}

// makePlan says which pods to make or delete. One that is being deleted leaves its pods to garbage collection.
func makePlan(s *scope) workload.Change {
	if s.rc.DeletionTimestamp != nil || s.rc.Spec.Template == nil {
		return workload.Change{}
	}
	colocated := map[string]int{}
	for _, pod := range s.pods {
		if workload.IsActive(pod) && pod.Spec.NodeName != "" {
			colocated[pod.Spec.NodeName]++
		}
	}
	return workload.Replicas{
		Owner: s.rc.Name, UID: s.rc.UID, Want: s.want(), Pods: s.pods, Foreign: s.foreign, Colocated: colocated, Now: s.now,
	}.Plan()
}
