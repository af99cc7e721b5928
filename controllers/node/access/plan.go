// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podenv"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// names are what the pods of one node refer to in one namespace.
type names struct {
	configMaps, secrets, accounts map[string]bool
}

// add notes what one pod refers to, and the pull secrets of its service account.
func (n *names) add(pod *pcorev1.Pod, pulls []string) {
	note := func(kind, name string) {
		switch {
		case name == "":
		case kind == revision.KindSecret:
			n.secrets[name] = true
		default:
			n.configMaps[name] = true
		}
	}
	for _, need := range revision.Needs(&pcorev1.PodTemplateSpec{Spec: pod.Spec}) {
		note(need.Kind, need.Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		for _, ref := range podenv.References(&c) {
			note(ref.Kind, ref.Name)
		}
	}
	for _, ref := range pod.Spec.ImagePullSecrets {
		note(revision.KindSecret, ref.Name)
	}
	for _, name := range pulls {
		note(revision.KindSecret, name)
	}
	if account := tokenAccount(pod); account != "" {
		n.accounts[account] = true
	}
}

// tokenAccount is the service account of a pod into which one of its volumes puts a token; empty without such a volume.
func tokenAccount(pod *pcorev1.Pod) string {
	for i := range pod.Spec.Volumes {
		projected := pod.Spec.Volumes[i].Projected
		if projected == nil {
			continue
		}
		for _, source := range projected.Sources {
			if source.ServiceAccountToken == nil {
				continue
			}
			return podstate.ServiceAccountName(pod)
		}
	}
	return ""
}

// refersToAny tells whether a pod needs its node's agent to read anything.
func refersToAny(pod *pcorev1.Pod) bool { return len(makeRules([]*pcorev1.Pod{pod}, nil)) > 0 }

// pullsAs is the service account whose pull secrets count for a pod; empty when it names its own.
func pullsAs(pod *pcorev1.Pod) string {
	if len(pod.Spec.ImagePullSecrets) > 0 {
		return ""
	}
	return podstate.ServiceAccountName(pod)
}

// makeRules says what the agent may do in the namespace of these pods, which are all on its node. Pods that have ended need nothing.
// pulls are the pull secrets of the namespace's service accounts.
func makeRules(pods []*pcorev1.Pod, pulls map[string][]string) []rbacv1.PolicyRule {
	n := names{configMaps: map[string]bool{}, secrets: map[string]bool{}, accounts: map[string]bool{}}
	for _, pod := range pods {
		if !podstate.IsTerminal(pod.Status.Phase) {
			n.add(pod, pulls[pullsAs(pod)])
		}
	}
	var out []rbacv1.PolicyRule
	rule := func(verb string, groups []string, resource string, allowed map[string]bool) {
		// A rule without names would allow all of them.
		if len(allowed) > 0 {
			out = append(out, rbacv1.PolicyRule{
				Verbs: []string{verb}, APIGroups: groups, Resources: []string{resource}, ResourceNames: slices.Sorted(maps.Keys(allowed)),
			})
		}
	}
	both := []string{corev1.GroupName, pcorev1.GroupVersion.Group}
	rule("get", both, "configmaps", n.configMaps)
	rule("get", both, "secrets", n.secrets)
	rule("create", []string{corev1.GroupName}, "serviceaccounts/token", n.accounts)
	return out
}
