// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// scope is all that one look at a ReplicaSet knows.
type scope struct {
	rs       *pappsv1.ReplicaSet
	selector labels.Selector
	// pods are the ReplicaSet's own, ended and deleted ones included.
	pods []*pcorev1.Pod
	// foreign are names that pods of others hold.
	foreign map[string]bool
	// colocated says how many active pods of the same application each node holds; only known when there are too many pods.
	colocated map[string]int
	now       time.Time
}

// want is the wanted number of pods.
func (s *scope) want() int32 {
	if s.rs.Spec.Replicas == nil {
		return 1
	}
	return *s.rs.Spec.Replicas
}

// tooMany says whether pods have to go.
func (s *scope) tooMany() bool {
	active := 0
	for _, pod := range s.pods {
		if workload.IsActive(pod) {
			active++
		}
	}
	return active > int(s.want())
}

// makePlan says which pods to make or delete. A ReplicaSet that is being deleted leaves its pods to garbage collection.
func makePlan(s *scope) workload.Change {
	if s.rs.DeletionTimestamp != nil {
		return workload.Change{}
	}
	return workload.Replicas{
		Owner: s.rs.Name, UID: s.rs.UID, Want: s.want(), Pods: s.pods, Foreign: s.foreign, Colocated: s.colocated, Now: s.now,
	}.Plan()
}
