// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func TestPullSecretsAreThePodsOrItsAccounts(t *testing.T) {
	login := func(name string) *pcorev1.Secret {
		s := &pcorev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Type: corev1.SecretTypeDockerConfigJson}
		s.Data = map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"registry.test":{"username":"` + name + `","password":"p"}}}`)}
		return s
	}
	account := func(name string, secrets ...string) *corev1.ServiceAccount {
		a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		for _, s := range secrets {
			a.ImagePullSecrets = append(a.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
		}
		return a
	}
	r := newRig(t, login("own"), login("shared"), login("team"), account("default", "shared"), account("team", "missing", "team"))
	cases := map[string]struct {
		change func(*pcorev1.Pod)
		want   []string
	}{
		"its own, not its account's":  {func(p *pcorev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "own"}} }, []string{"own"}},
		"the account default's":       {func(*pcorev1.Pod) {}, []string{"shared"}},
		"another account's":           {func(p *pcorev1.Pod) { p.Spec.ServiceAccountName = "team" }, []string{"team"}},
		"an account that isn't there": {func(p *pcorev1.Pod) { p.Spec.ServiceAccountName = "nobody" }, nil},
		"a static pod's":              {func(p *pcorev1.Pod) { p.Annotations = map[string]string{annotationConfigSource: "file"} }, nil},
	}
	rec := &record{node: &nodeState{Node: Node{Name: "node-1", Runtime: r.runtime}}}
	for name, c := range cases {
		pod := aPod("a").Obj()
		c.change(pod)
		var got []string
		for _, auth := range r.agent.pullSecrets(t.Context(), rec, pod, "registry.test/app:1", r.now) {
			got = append(got, auth.Username)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
