// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// The cases are those that upstream documents for its expansion.
func TestExpand(t *testing.T) {
	values := map[string]string{"A": "a", "B": "b", "EMPTY": ""}
	for in, want := range map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)":          "a",
		"x$(A)y$(B)z":   "xaybz",
		"$(EMPTY)!":     "!",
		"$(NO)":         "$(NO)",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$a",
		"$$$$(A)":       "$$(A)",
		"$A":            "$A",
		"$":             "$",
		"a$":            "a$",
		"$(A":           "$(A",
		"$(A$(B)":       "$(A$(B)",
		"$()":           "$()",
		"$(A) $(NO) $$": "a $(NO) $",
		"ü$(A)ü":        "üaü",
		"$ü$(A)":        "$üa",
	} {
		got := Expand(in, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		if got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func testPod() *Downward {
	return &Downward{
		Pod: &pcorev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid", Labels: map[string]string{"b": "2", "a": "1"}, Annotations: map[string]string{"note/x": "y"}},
			Spec: pcorev1.PodSpec{PodSpec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
			}}}}},
		},
		PodIPs: []string{"10.0.0.2", "fd00::2"}, HostIPs: []string{"192.0.2.1"},
		Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi"), corev1.ResourceCPU: resource.MustParse("4")},
	}
}

func TestMake(t *testing.T) {
	yes := true
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	objects := Objects{
		ConfigMaps: map[string]map[string]string{"cm": {"x": "1", "bad=name": "2", "y": "3"}},
		Secrets:    map[string]map[string][]byte{"sec": {"p": []byte("s3cret")}},
	}
	c := &corev1.Container{
		Name: "c",
		EnvFrom: []corev1.EnvFromSource{
			{Prefix: "CM_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("sec")}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("none"), Optional: &yes}},
		},
		Env: []corev1.EnvVar{
			{Name: "FIRST", Value: "1"},
			{Name: "SECOND", Value: "$(FIRST) $(p) $(SVC) $(LATER)"},
			{Name: "LATER", Value: "x"},
			{Name: "CM_x", Value: "over"},
			{Name: "KEY", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "y"}}},
			{Name: "NOKEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("sec"), Key: "no", Optional: &yes}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "requests.cpu"}}},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		},
	}
	got, err := Make(c, testPod(), objects, []Variable{{"SVC", "10.0.0.1"}, {"FIRST", "of a service"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Variable{
		{"SVC", "10.0.0.1"}, {"FIRST", "1"}, {"CM_x", "over"}, {"CM_y", "3"}, {"p", "s3cret"}, {"SECOND", "1 s3cret 10.0.0.1 $(LATER)"}, {"LATER", "x"},
		{"KEY", "3"}, {"IP", "10.0.0.2"}, {"CPU", "1"}, {"MEM", "2048"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestMakeSaysWhatIsMissing(t *testing.T) {
	source := func(s corev1.EnvVarSource) *corev1.Container {
		return &corev1.Container{Name: "c", Env: []corev1.EnvVar{{Name: "V", ValueFrom: &s}}}
	}
	for want, c := range map[string]*corev1.Container{
		`configmap "no" not found`:                  {EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}}}}},
		`couldn't find key k in ConfigMap ns/cm`:    source(corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k"}}),
		`secret "no" not found`:                     source(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Key: "k"}}),
		`unsupported fieldPath "spec.nothing"`:      source(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nothing"}}),
		`unsupported container resource "what"`:     source(corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "what", ContainerName: "c"}}),
		`container x of resourceFieldRef`:           source(corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", ContainerName: "x"}}),
		`source of the environment variable V is`:   source(corev1.EnvVarSource{}),
		`a key is possible for metadata.labels and`: source(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec['x']"}}),
	} {
		_, err := Make(c, testPod(), Objects{ConfigMaps: map[string]map[string]string{"cm": {}}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestField(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.labels": "a=\"1\"\nb=\"2\"", "metadata.labels['b']": "2", "metadata.annotations['note/x']": "y", "status.podIPs": "10.0.0.2,fd00::2",
		"spec.serviceAccountName": "default", "spec.nodeName": "node", "metadata.uid": "uid", "status.hostIPs": "192.0.2.1",
	} {
		if got, err := testPod().Field(path); err != nil || got != want {
			t.Errorf("Field(%s) = %q, %v; want %q", path, got, err, want)
		}
	}
}
