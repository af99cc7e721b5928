// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicationcontroller

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// makeStatus computes the status. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, failure error) (status pcorev1.ReplicationControllerStatus, wait time.Duration) {
	rc := s.Owner
	template := rc.Spec.Template
	if template == nil {
		template = &pcorev1.PodTemplateSpec{}
	}
	counts := workload.Count(s.Pods, template.Labels, rc.Spec.MinReadySeconds, s.Now)
	status = *rc.Status.DeepCopy()
	status.ObservedGeneration = rc.Generation
	status.Replicas = counts.Replicas
	status.FullyLabeledReplicas = counts.FullyLabeled
	status.ReadyReplicas = counts.Ready
	status.AvailableReplicas = counts.Available
	status.Selector = s.Selector.String()
	status.Columns = workload.Columns(counts.Ready, want(rc), template, status.Selector)
	status.Conditions, wait = workload.ReplicaConditions(condition.ReplicationController, status.Conditions, workload.ReplicaReport{
		Pods: s.Pods, Counts: counts, Want: want(rc), Failure: failure, Now: s.Now,
	})
	return status, wait
}

// compareStatus says how soon the new status must be written.
func compareStatus(before, after *pcorev1.ReplicationControllerStatus) workload.Urgency {
	switch {
	case equality.Semantic.DeepEqual(before, after):
		return workload.Same
	case before.ObservedGeneration != after.ObservedGeneration:
		return workload.AtOnce
	}
	return workload.ReplicaUrgency(condition.ReplicationController, before.Conditions, after.Conditions)
}
