// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Burst is the most pods that one plan creates or deletes; the rest waits for the next look. Upstream's number.
const Burst = 500

// Replicas is what an owner of equal pods knows when it plans.
type Replicas struct {
	// Owner and UID name the owner; the pods' names come from them.
	Owner string
	UID   types.UID
	// Want is the wanted number of pods.
	Want int32
	// Pods are the owner's pods, its own writes included, ended and deleted ones too.
	Pods []*pcorev1.Pod
	// Foreign are names that objects of somebody else are known to hold.
	Foreign map[string]bool
	// Colocated says how many active pods of the same application each node holds.
	Colocated map[string]int
	// Now is the time of planning.
	Now time.Time
}

// Change is what to do about an owner's pods. At most one of the two lists has entries.
type Change struct {
	// Create are the names of the pods to make.
	Create []string
	// Delete are the pods to delete, in order.
	Delete []*pcorev1.Pod
}

// Plan says which pods to make or delete so that the wanted number is there.
func (r Replicas) Plan() Change {
	active := 0
	taken := make(map[string]bool, len(r.Pods)+len(r.Foreign))
	for _, pod := range r.Pods {
		taken[pod.Name] = true
		if IsActive(pod) {
			active++
		}
	}
	for name := range r.Foreign {
		taken[name] = true
	}
	switch missing := int(r.Want) - active; {
	case missing > 0:
		return Change{Create: FreeNames(r.Owner, r.UID, min(missing, Burst), taken)}
	case missing < 0:
		return Change{Delete: DeletionOrder(r.Pods, r.Colocated, r.Now)[:min(-missing, Burst)]}
	}
	return Change{}
}
