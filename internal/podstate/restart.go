// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// IsSidecar tells whether an init container is a restartable one, which keeps running beside the main containers.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// IsTerminal tells whether a phase is final.
func IsTerminal(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// RestartsAfter tells whether a container that ended with the exit code is to be started again: by its own rules, then
// its own policy, then the pod's, of which the default is Always.
func RestartsAfter(c *corev1.Container, spec *corev1.PodSpec, exitCode int32) bool {
	if c.RestartPolicy != nil {
		if action := ruleAfter(c, exitCode); action == corev1.ContainerRestartRuleActionRestart || action == corev1.ContainerRestartRuleActionRestartAllContainers {
			return true
		}
		switch *c.RestartPolicy {
		case corev1.ContainerRestartPolicyAlways:
			return true
		case corev1.ContainerRestartPolicyOnFailure:
			return exitCode != 0
		case corev1.ContainerRestartPolicyNever:
			return false
		}
	}
	switch spec.RestartPolicy {
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	case corev1.RestartPolicyNever:
		return false
	}
	return true
}

// RestartsAllAfter tells whether, by its rules, all containers of the pod are to be started again when this one ends with the exit code.
func RestartsAllAfter(c *corev1.Container, exitCode int32) bool {
	return c.RestartPolicy != nil && ruleAfter(c, exitCode) == corev1.ContainerRestartRuleActionRestartAllContainers
}

// MayRestartAll tells whether any container has a rule by which all are started again.
func MayRestartAll(spec *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			for _, rule := range list[i].RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// ruleAfter is the action of the first rule that matches the exit code, which is the one that counts; empty when none does.
func ruleAfter(c *corev1.Container, exitCode int32) corev1.ContainerRestartRuleAction {
	for _, rule := range c.RestartPolicyRules {
		if ruleMatches(rule.ExitCodes, exitCode) {
			return rule.Action
		}
	}
	return ""
}

func ruleMatches(on *corev1.ContainerRestartRuleOnExitCodes, exitCode int32) bool {
	if on == nil {
		return false
	}
	listed := slices.Contains(on.Values, exitCode)
	switch on.Operator {
	case corev1.ContainerRestartRuleOnExitCodesOpIn:
		return listed
	case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !listed
	}
	return false
}
