// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/disruption"
)

// Reasons of PodDisruptionBudget's kstatus conditions.
const (
	// reasonCounted: the status says how many pods may be disrupted.
	reasonCounted = "Counted"
	// reasonNoPods: the budget selects no pod. Upstream has it as an event.
	reasonNoPods = "NoPods"
	// reasonUnmanagedPods: the budget selects pods without a controller, which it can't count. Upstream has it as an event.
	reasonUnmanagedPods = "UnmanagedPods"
	// reasonShared: pods of the budget belong to another one too, and can't be evicted at all.
	reasonShared = "MultiplePodDisruptionBudgets"
)

// makeStatus computes the status.
func makeStatus(s *scope, c count) ppolicyv1.PodDisruptionBudgetStatus {
	status := *s.pdb.Status.DeepCopy()
	status.Columns = pcorev1.Columns{"minAvailable": amount(s.pdb.Spec.MinAvailable), "maxUnavailable": amount(s.pdb.Spec.MaxUnavailable)}
	status.ObservedGeneration = s.pdb.Generation
	status.DisruptionsAllowed = c.allowed
	if c.problem != "" {
		// Nothing is known but that nothing is known: the other numbers stay as they were, and whoever evicts is refused. Upstream leaves the
		// generation as well; ours says that it was looked at, so that a tool believes the condition.
		status.Conditions = condition.Meta.Set(status.Conditions, condition.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: corev1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: c.problem,
		}, s.now)
	} else {
		status.ExpectedPods, status.DesiredHealthy, status.CurrentHealthy = c.expected, c.desired, c.healthy
		status.DisruptedPods = c.pending
		status.Conditions = disruption.SetAllowed(status.Conditions, c.allowed, s.pdb.Generation, s.now)
	}
	status.Conditions = condition.Meta.SetVerdict(status.Conditions, judge(s, c), s.now)
	status.Conditions = condition.Observed(status.Conditions, status.ObservedGeneration)
	return status
}

// judge says in one sentence how the budget is.
func judge(s *scope, c count) condition.Verdict {
	switch {
	case c.problem != "" && c.permanent:
		return condition.Verdict{State: condition.Failed, Reason: policyv1.SyncFailedReason, Message: c.problem}
	case c.problem != "":
		return condition.Verdict{State: condition.InProgress, Reason: policyv1.SyncFailedReason, Message: c.problem}
	case len(s.pods) == 0:
		return condition.Verdict{State: condition.Done, Reason: reasonNoPods, Message: "The selector matches no pod, so there is nothing to protect."}
	case s.shared != "":
		return condition.Verdict{State: condition.Done, Reason: reasonShared, Message: s.shared}
	case len(c.unmanaged) > 0:
		return condition.Verdict{
			State: condition.Done, Reason: reasonUnmanagedPods,
			Message: fmt.Sprintf("Pods without a controller can't be counted (%s): write spec.minAvailable as a number to protect them.", few(c.unmanaged)),
		}
	}
	return condition.Verdict{State: condition.Done, Reason: reasonCounted, Message: "The status says how many pods may be disrupted."}
}

// amount is what kubectl shows of a bound.
func amount(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}
