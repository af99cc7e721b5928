// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package jobstate

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Failure is what a failure policy makes of a failed pod.
type Failure struct {
	// Action is that of the rule that matched; empty when none did.
	Action batchv1.PodFailurePolicyAction
	// Message says which pod matched which rule, when the action is FailJob.
	Message string
}

// Counts says whether the failure counts against the backoff limits.
func (f Failure) Counts() bool { return f.Action != batchv1.PodFailurePolicyActionIgnore }

// MatchFailure finds the first rule of the policy that fits a failed pod (upstream's matchPodFailurePolicy, its messages too). Without
// a policy, or a rule that fits, the failure just counts.
func MatchFailure(policy *batchv1.PodFailurePolicy, pod *pcorev1.Pod) Failure {
	if policy == nil {
		return Failure{}
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		if rule.OnExitCodes != nil {
			if s := matchExitCode(&pod.Status.PodStatus, rule.OnExitCodes); s != nil {
				return Failure{rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
					s.Name, pod.Namespace, pod.Name, s.State.Terminated.ExitCode, rule.Action, i)}
			}
			continue
		}
		if c := matchCondition(&pod.Status.PodStatus, rule.OnPodConditions); c != nil {
			return Failure{rule.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d",
				pod.Namespace, pod.Name, c.Type, rule.Action, i)}
		}
	}
	return Failure{}
}

func matchCondition(status *corev1.PodStatus, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range status.Conditions {
		c := &status.Conditions[i]
		for _, p := range patterns {
			if c.Type == p.Type && c.Status == p.Status {
				return c
			}
		}
	}
	return nil
}

// matchExitCode returns the first container that ended with a code that fits; main containers come before init containers. Code 0
// never fits: it isn't a failure.
func matchExitCode(status *corev1.PodStatus, want *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{status.ContainerStatuses, status.InitContainerStatuses} {
		for i := range list {
			s := &list[i]
			if s.State.Terminated == nil || s.State.Terminated.ExitCode == 0 || (want.ContainerName != nil && *want.ContainerName != s.Name) {
				continue
			}
			listed := slices.Contains(want.Values, s.State.Terminated.ExitCode)
			if listed && want.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn || !listed && want.Operator == batchv1.PodFailurePolicyOnExitCodesOpNotIn {
				return s
			}
		}
	}
	return nil
}

// MatchSuccess says whether the indexes that are done meet the policy of a Job with that many completions, and by which rule
// (upstream's matchSuccessPolicy, its message too).
func MatchSuccess(policy *batchv1.SuccessPolicy, completions int, done Indexes) (message string, met bool) {
	if policy == nil || len(done) == 0 {
		return "", false
	}
	for i := range policy.Rules {
		if matchSuccessRule(&policy.Rules[i], completions, done) {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}

func matchSuccessRule(rule *batchv1.SuccessPolicyRule, completions int, done Indexes) bool {
	if rule.SucceededIndexes == nil {
		return rule.SucceededCount != nil && done.Len() >= int(*rule.SucceededCount)
	}
	asked := ParseIndexes(*rule.SucceededIndexes, completions)
	if len(asked) == 0 {
		return false
	}
	n := asked.Common(done)
	return n == asked.Len() || (rule.SucceededCount != nil && n >= int(*rule.SucceededCount))
}
