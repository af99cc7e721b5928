// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// want is the wanted number of pods.
func want(rs *pappsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

// tooMany says whether pods have to go.
func tooMany(s *scope) bool {
	active := 0
	for _, pod := range s.Pods {
		if workload.IsActive(pod) {
			active++
		}
	}
	return active > int(want(s.Owner))
}

// makePlan says which pods to make or delete. A ReplicaSet that is being deleted leaves its pods to garbage collection.
func makePlan(s *scope) workload.Change {
	if s.Owner.DeletionTimestamp != nil {
		return workload.Change{}
	}
	return workload.Replicas{
		Owner: s.Owner.Name, UID: s.Owner.UID, Want: want(s.Owner), Pods: s.Pods, Foreign: s.Foreign, Colocated: s.Colocated, Now: s.Now,
	}.Plan()
}
