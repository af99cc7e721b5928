// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func named(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

// configured refers to config at every place where a pod can.
func configured() *pcorev1.PodTemplateSpec {
	t := template("image:1")
	c := &t.Spec.Containers[0]
	c.EnvFrom = []corev1.EnvFromSource{
		{Prefix: "A_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("env")}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("env"), Optional: new(true)}},
	}
	c.Env = []corev1.EnvVar{
		{Name: "PLAIN", Value: "x"},
		{Name: "FIELD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		{Name: "KEY", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named("key"), Key: "k", Optional: new(true)}}},
		{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named("key"), Key: "k"}}},
	}
	t.Spec.InitContainers = []corev1.Container{{Name: "init", EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("init")}}}}}
	t.Spec.ImagePullSecrets = []corev1.LocalObjectReference{named("registry")}
	t.Spec.Volumes = []corev1.Volume{
		{Name: "a", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("volume"), Items: []corev1.KeyToPath{{Key: "k", Path: "p"}}}}},
		{Name: "b", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume", DefaultMode: new(int32(0o400))}}},
		{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("projected")}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: named("projected")}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		}}}},
		{Name: "d", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		// The same Secret, optional here: it is needed all the same.
		{Name: "e", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume", Optional: new(true)}}},
	}
	return t
}

func TestNeeds(t *testing.T) {
	var got []string
	for _, n := range Needs(configured()) {
		got = append(got, fmt.Sprintf("%s %v", n, n.Optional))
	}
	want := []string{
		"ConfigMap env false", "ConfigMap init false", "ConfigMap key true", "ConfigMap projected false", "ConfigMap volume false",
		"Secret env true", "Secret key false", "Secret projected false", "Secret volume false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func all(t *pcorev1.PodTemplateSpec, digest string) map[ConfigRef]Content {
	out := map[ConfigRef]Content{}
	for _, n := range Needs(t) {
		out[n.ConfigRef] = Content{Digest: digest}
	}
	return out
}

func TestPin(t *testing.T) {
	before := configured()
	p := Pin("Deployment/web", before, all(before, "one"))
	pinned, snapshots := p.Template, p.Snapshots
	if diff := cmp.Diff(configured(), before); diff != "" {
		t.Errorf("the argument was changed: %s", diff)
	}
	if len(snapshots) != 9 || len(Needs(pinned)) != 9 {
		t.Fatalf("%d snapshots, %d needs", len(snapshots), len(Needs(pinned)))
	}
	for i, need := range Needs(pinned) {
		source := snapshots[i].Source
		if need.ConfigRef != snapshots[i].ConfigRef || !strings.HasPrefix(need.Name, source.Name+"-") || need.Kind != source.Kind {
			t.Errorf("%s stands for %s, the snapshot is %+v", need, source, snapshots[i])
		}
		if errs := validation.IsDNS1123Subdomain(need.Name); len(errs) > 0 {
			t.Error(errs)
		}
	}
	// The names are stored. These must never change.
	if got := pinned.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name; got != "env-jq4q6v94qg" {
		t.Errorf("the name of a snapshot is %s", got)
	}
	if pinned.Spec.ImagePullSecrets[0].Name != "registry" {
		t.Error("what pulls images was pinned")
	}
	if pinned.Spec.Volumes[0].ConfigMap.Items[0] != (corev1.KeyToPath{Key: "k", Path: "p"}) {
		t.Error("items were lost")
	}
	other := Pin("Deployment/other", before, all(before, "one"))
	changed := Pin("Deployment/web", before, all(before, "two"))
	if Equal(pinned, other.Template) || Equal(pinned, changed.Template) {
		t.Error("another workload, or another content, has the same names")
	}
}

func TestPinWhatIsMissing(t *testing.T) {
	before := configured()
	contents := all(before, "one")
	delete(contents, ConfigRef{KindConfigMap, "key"}) // optional
	without := Pin("Deployment/web", before, contents)
	if without.Missing != nil || len(without.Snapshots) != 8 {
		t.Fatalf("%d snapshots: %v", len(without.Snapshots), without.Missing)
	}
	if name := without.Template.Spec.Containers[0].Env[2].ValueFrom.ConfigMapKeyRef.Name; name == "key" {
		t.Error("optional config that isn't there would be read once it is, in the middle of a revision")
	}
	delete(contents, ConfigRef{KindSecret, "volume"})
	delete(contents, ConfigRef{KindConfigMap, "env"})
	lacking := Pin("Deployment/web", before, contents)
	if lacking.Missing == nil || lacking.Missing.Error() != "ConfigMap env, Secret volume aren't there: the rollout waits for them" || lacking.Template != nil {
		t.Errorf("%+v", lacking)
	}
	if plain := configured(); lacking.Or(plain) != plain || without.Or(plain) == plain {
		t.Error("the wrong template")
	}
}

// TestPinAgain: a template that names snapshots, as one does after a rollback on request, is left as it is.
func TestPinAgain(t *testing.T) {
	p := Pin("Deployment/web", configured(), all(configured(), "one"))
	contents := map[ConfigRef]Content{}
	for _, s := range p.Snapshots {
		contents[s.ConfigRef] = Content{Frozen: true}
	}
	again := Pin("Deployment/web", p.Template, contents)
	if again.Missing != nil || len(again.Snapshots) > 0 || !Equal(p.Template, again.Template) {
		t.Errorf("%+v", again)
	}
}

// TestPinTellsContentsApart: two pinned templates are equal exactly if all contents are.
func TestPinTellsContentsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(what string) (map[ConfigRef]Content, string) {
			contents, said := map[ConfigRef]Content{}, ""
			for _, n := range Needs(configured()) {
				text := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"", "1"}), 0, 2).Draw(t, what+n.String())
				if n.Optional && rapid.Bool().Draw(t, what+" lacks "+n.String()) {
					said += n.String() + " absent\n"
					continue
				}
				digest, err := Digest(text, nil)
				if err != nil {
					t.Fatal(err)
				}
				contents[n.ConfigRef] = Content{Digest: digest}
				said += fmt.Sprintln(n, text)
			}
			return contents, said
		}
		a, saidA := draw("a")
		b, saidB := draw("b")
		left, right := Pin("DaemonSet/x", configured(), a), Pin("DaemonSet/x", configured(), b)
		if equal := Equal(left.Template, right.Template); equal != (saidA == saidB) {
			t.Fatalf("equal: %v; contents %s and %s", equal, saidA, saidB)
		}
	})
}

func TestDigest(t *testing.T) {
	digest := func(text map[string]string, bytes map[string][]byte) string {
		out, err := Digest(text, bytes)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if digest(nil, nil) != digest(map[string]string{}, map[string][]byte{}) {
		t.Error("absent and empty differ")
	}
	seen := map[string]bool{}
	for _, d := range []string{
		digest(nil, nil), digest(map[string]string{"a": ""}, nil), digest(nil, map[string][]byte{"a": {}}),
		digest(map[string]string{"a": "b"}, nil), digest(map[string]string{"ab": ""}, nil), digest(nil, map[string][]byte{"a": []byte("b")}),
	} {
		if seen[d] {
			t.Errorf("%s twice", d)
		}
		seen[d] = true
	}
}

func TestSnapshotNameFits(t *testing.T) {
	long := strings.Repeat("a", 253)
	one, two := snapshotName("o", ConfigRef{KindSecret, long}, "d"), snapshotName("o", ConfigRef{KindSecret, long[:252] + "b"}, "d")
	if len(one) != 253 || one == two {
		t.Errorf("%s and %s", one, two)
	}
}
