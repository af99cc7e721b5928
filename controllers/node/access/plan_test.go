// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func TestMakeRules(t *testing.T) {
	configured := &pcorev1.Pod{}
	configured.Spec.ServiceAccountName = "builder"
	configured.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	configured.Spec.Containers = []corev1.Container{{
		EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
		Env: []corev1.EnvVar{{Name: "P", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "password"}},
		}}},
	}}
	configured.Spec.Volumes = []corev1.Volume{
		{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
		}}}},
	}
	debugged := &pcorev1.Pod{}
	debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "debug"}}}},
	}}}
	ended := configured.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	plain := &pcorev1.Pod{}
	plain.Spec.ServiceAccountName = "unused" // without a token in the pod, nobody needs one

	bare := &pcorev1.Pod{} // runs as the account default
	named := &pcorev1.Pod{}
	named.Spec.DeprecatedServiceAccount = "puller"
	pulls := map[string][]string{"default": {"hub"}, "puller": {"quay", "hub"}, "builder": {"not asked for: the pod has its own"}}

	both := []string{"", "core.pinnace.dev"}
	secrets := func(names ...string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: both, Resources: []string{"secrets"}, ResourceNames: names}}
	}
	cases := map[string]struct {
		pods []*pcorev1.Pod
		want []rbacv1.PolicyRule
	}{
		"none":                       {nil, nil},
		"plain":                      {[]*pcorev1.Pod{plain}, nil},
		"ended":                      {[]*pcorev1.Pod{ended}, nil},
		"the account's pull secrets": {[]*pcorev1.Pod{bare}, secrets("hub")},
		"another account's":          {[]*pcorev1.Pod{bare, named}, secrets("hub", "quay")},
		"all": {[]*pcorev1.Pod{configured, configured, debugged, plain, ended}, []rbacv1.PolicyRule{
			{Verbs: []string{"get"}, APIGroups: both, Resources: []string{"configmaps"}, ResourceNames: []string{"kube-root-ca.crt", "settings"}},
			{Verbs: []string{"get"}, APIGroups: both, Resources: []string{"secrets"}, ResourceNames: []string{"debug", "hub", "password", "registry"}},
			{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{"builder"}},
		}},
	}
	for name, c := range cases {
		if diff := cmp.Diff(c.want, makeRules(c.pods, pulls)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
