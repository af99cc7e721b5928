// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// maxPending is how many evictions of one budget may be noted before its controller confirms them. Upstream's.
const maxPending = 2000

// Answer is what an eviction's caller is told.
type Answer int

const (
	// Yes means that the pod may go.
	Yes Answer = iota
	// NotNow means that the budget has no disruption left, or its controller is behind: HTTP 429, try again later.
	NotNow
	// Never means that the budget's status is out of order: HTTP 403.
	Never
	// Ambiguous means that several budgets select the pod, which evictions don't support: HTTP 500, as upstream.
	Ambiguous
)

// Decision is whether a pod may be evicted, and what has to be done first.
type Decision struct {
	Answer Answer
	// Message is one sentence for the caller when the answer isn't Yes. Budget is the name of the budget that decided; empty when none did.
	Message, Budget string
	// RetryAfter is when to ask again, as a hint; zero when nobody knows.
	RetryAfter time.Duration
	// Claim is the budget with the status that takes one disruption. With the answer Yes and a claim, put this status, with its
	// resource version, before the pod is deleted; on a conflict, read the budget and decide anew. Nil: no status has to be written.
	Claim *ppolicyv1.PodDisruptionBudget
	// ExactPod says that the pod must be deleted at the resource version that was looked at: were it to become healthy meanwhile,
	// the budget would have to be asked.
	ExactPod bool
}

// MayEvict decides whether a pod may be evicted now. budgets are all of its namespace. The rules are upstream's
// (k8s.io/kubernetes pkg/registry/core/pod/storage/eviction.go): what doesn't run isn't protected, an unhealthy pod is as far as
// spec.unhealthyPodEvictionPolicy says, and all others take one of the budget's disruptions.
func MayEvict(pod *pcorev1.Pod, budgets []*ppolicyv1.PodDisruptionBudget, now time.Time) Decision {
	ended := workload.IsTerminal(pod) || pod.DeletionTimestamp != nil
	if ended || pod.Status.Phase == corev1.PodPending || pod.Status.Phase == "" {
		return Decision{ExactPod: !ended}
	}
	matching := Matching(pod, budgets)
	switch len(matching) {
	case 0:
		return Decision{}
	case 1:
	default:
		var names []string
		for _, b := range matching {
			names = append(names, b.Name)
		}
		return Decision{Answer: Ambiguous, Message: fmt.Sprintf("Pod %s is selected by more than one PodDisruptionBudget (%s): leave one.", pod.Name, strings.Join(names, ", "))}
	}
	budget := matching[0]
	if !workload.IsReady(pod) && unprotected(budget) {
		return Decision{Budget: budget.Name, ExactPod: true}
	}
	return claim(budget, pod.Name, now)
}

// Matching returns the budgets that select a pod, by name.
func Matching(pod *pcorev1.Pod, budgets []*ppolicyv1.PodDisruptionBudget) []*ppolicyv1.PodDisruptionBudget {
	var out []*ppolicyv1.PodDisruptionBudget
	for _, b := range budgets {
		selector, err := Selector(&b.Spec)
		if err == nil && b.Namespace == pod.Namespace && selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *ppolicyv1.PodDisruptionBudget) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// unprotected says whether a budget lets its unhealthy pods go without counting them.
func unprotected(b *ppolicyv1.PodDisruptionBudget) bool {
	if p := b.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// claim takes one disruption of a budget for a pod, if there is one.
func claim(b *ppolicyv1.PodDisruptionBudget, pod string, now time.Time) Decision {
	d := Decision{Budget: b.Name}
	status := &b.Status
	switch {
	case status.ObservedGeneration < b.Generation:
		d.Answer, d.RetryAfter = NotNow, 10*time.Second
		d.Message = fmt.Sprintf("The disruption budget %s is still being processed by its controller.", b.Name)
		return d
	case status.DisruptionsAllowed < 0:
		d.Answer, d.Message = Never, fmt.Sprintf("The disruption budget %s allows a negative number of disruptions.", b.Name)
		return d
	case len(status.DisruptedPods) > maxPending:
		d.Answer, d.Message = Never, fmt.Sprintf("The disruption budget %s has too many evictions that its controller hasn't confirmed yet.", b.Name)
		return d
	case status.DisruptionsAllowed == 0:
		d.Answer, d.Message = NotNow, whyNone(b)
		return d
	}
	d.Claim = b.DeepCopy()
	d.Claim.Status.DisruptionsAllowed--
	if d.Claim.Status.DisruptedPods == nil {
		d.Claim.Status.DisruptedPods = map[string]metav1.Time{}
	}
	d.Claim.Status.DisruptedPods[pod] = condition.Stamp(now)
	d.Claim.Status.Conditions = SetAllowed(d.Claim.Status.Conditions, d.Claim.Status.DisruptionsAllowed, d.Claim.Status.ObservedGeneration, now)
	return d
}

// whyNone says why a budget allows no disruption.
func whyNone(b *ppolicyv1.PodDisruptionBudget) string {
	c, ok := condition.Meta.Get(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
	switch {
	case ok && c.Status == corev1.ConditionFalse && c.Reason == policyv1.SyncFailedReason && c.Message != "":
		return fmt.Sprintf("The disruption budget %s allows no eviction, since it couldn't be counted: %s", b.Name, c.Message)
	case b.Status.CurrentHealthy <= b.Status.DesiredHealthy:
		return fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d.", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
	}
	return fmt.Sprintf("The disruption budget %s allows no eviction at the moment.", b.Name)
}

// SetAllowed returns the conditions with DisruptionAllowed as the number says.
func SetAllowed(list []metav1.Condition, allowed int32, generation int64, now time.Time) []metav1.Condition {
	c := condition.Condition{Type: policyv1.DisruptionAllowedCondition, Status: corev1.ConditionFalse, Reason: policyv1.InsufficientPodsReason}
	if allowed > 0 {
		c.Status, c.Reason = corev1.ConditionTrue, policyv1.SufficientPodsReason
	}
	return condition.Observed(condition.Meta.Set(list, c, now), generation)
}
