// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// makeStatus computes the status. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, failure error) (status pappsv1.ReplicaSetStatus, wait time.Duration) {
	rs := s.Owner
	counts := workload.Count(s.Pods, rs.Spec.Template.Labels, rs.Spec.MinReadySeconds, s.Now)
	status = *rs.Status.DeepCopy()
	status.ObservedGeneration = rs.Generation
	status.Replicas = counts.Replicas
	status.FullyLabeledReplicas = counts.FullyLabeled
	status.ReadyReplicas = counts.Ready
	status.AvailableReplicas = counts.Available
	status.TerminatingReplicas = &counts.Terminating
	status.Selector = s.Selector.String()
	status.Columns = workload.Columns(counts.Ready, want(rs), &rs.Spec.Template, status.Selector)
	status.Conditions, wait = workload.ReplicaConditions(condition.ReplicaSet, status.Conditions, workload.ReplicaReport{
		Pods: s.Pods, Counts: counts, Want: want(rs), Failure: failure, Now: s.Now,
	})
	return status, wait
}

// compareStatus says how soon the new status must be written.
func compareStatus(before, after *pappsv1.ReplicaSetStatus) workload.Urgency {
	switch {
	case equality.Semantic.DeepEqual(before, after):
		return workload.Same
	case before.ObservedGeneration != after.ObservedGeneration:
		return workload.AtOnce
	}
	return workload.ReplicaUrgency(condition.ReplicaSet, before.Conditions, after.Conditions)
}
