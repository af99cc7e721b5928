// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func TestReadLook(t *testing.T) {
	got, err := readLook(strings.NewReader(`# HELP node_cpu_usage_seconds_total Cumulative
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 12.5 1000
node_memory_working_set_bytes 2e+06 1000
container_start_time_seconds{container="c",namespace="d",pod="p"} 0.5
container_cpu_usage_seconds_total{container="c",namespace="d",pod="p"} 3 1500
container_memory_working_set_bytes{container="c",namespace="d",pod="p"} 4096 1500
pod_cpu_usage_seconds_total{namespace="d",pod="p"} 3 1500
container_cpu_usage_seconds_total{container="c",namespace="d",pod="p" 3 1500
container_cpu_usage_seconds_total{container="x",namespace="d",pod="p"} NaN 1500
nonsense
`))
	want := &look{
		node:       reading{cpu: 12.5, memory: 2000000, at: time.UnixMilli(1000)},
		containers: map[containerKey]reading{{"d", "p", "c"}: {cpu: 3, memory: 4096, at: time.UnixMilli(1500), started: time.UnixMilli(500)}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(look{}, reading{}, containerKey{})); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestRate(t *testing.T) {
	at := func(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1000)) }
	for _, c := range []struct {
		name        string
		before, now reading
		want        rate
		ok          bool
	}{
		{"between two looks", reading{cpu: 1, at: at(10)}, reading{cpu: 3, memory: 7, at: at(14)}, rate{0.5, 7, at(14), 4 * time.Second}, true},
		{"new, from its start", reading{}, reading{cpu: 1, at: at(14), started: at(12)}, rate{0.5, 0, at(14), 2 * time.Second}, true},
		{"started anew in between", reading{cpu: 9, at: at(10)}, reading{cpu: 1, at: at(14), started: at(12)}, rate{0.5, 0, at(14), 2 * time.Second}, true},
		{"new, nobody knows since when", reading{}, reading{cpu: 1, at: at(14)}, rate{}, false},
		{"the same look", reading{cpu: 1, at: at(10)}, reading{cpu: 1, at: at(10)}, rate{}, false},
		{"gone", reading{cpu: 1, at: at(10)}, reading{}, rate{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := rateOf(c.before, c.now)
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(rate{})); diff != "" || ok != c.ok {
				t.Errorf("%v: %s", ok, diff)
			}
		})
	}
}

func TestPodMetrics(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "p"}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: running}, {Name: "b", State: running}, {Name: "done"}}
	at := func(seconds int64, cpu float64) reading {
		return reading{cpu: cpu, memory: 1 << 20, at: time.Unix(seconds, 0)}
	}
	key := func(name string) containerKey { return containerKey{"d", "p", name} }
	l := looks{before: &look{containers: map[containerKey]reading{key("a"): at(10, 0)}}, now: &look{containers: map[containerKey]reading{key("a"): at(20, 1), key("b"): at(21, 1)}}}
	if _, ok := podMetrics(pod, l); ok {
		t.Error("a pod is told of although nothing is known of one of its containers")
	}
	l.before.containers[key("b")] = at(9, 0)
	got, ok := podMetrics(pod, l)
	if !ok || len(got.Containers) != 2 || got.Containers[0].Usage.Cpu().String() != "100m" || got.Containers[0].Usage.Memory().String() != "1Mi" ||
		got.Timestamp.Unix() != 20 || got.Window.Duration != 12*time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestEvictionsInEveryEncoding(t *testing.T) {
	seconds := int64(7)
	eviction := &policyv1.Eviction{TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "Eviction"}, ObjectMeta: metav1.ObjectMeta{Name: "p"}, DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &seconds}}
	s := runtime.NewScheme()
	if err := policyv1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	encode := func(e runtime.Encoder) string {
		var out strings.Builder
		if err := e.Encode(eviction, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for name, body := range map[string]string{
		"JSON":          `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"},"deleteOptions":{"gracePeriodSeconds":7}}`,
		"JSON, no kind": `{"metadata":{"name":"p"},"deleteOptions":{"gracePeriodSeconds":7}}`,
		"YAML":          "apiVersion: policy/v1\nkind: Eviction\nmetadata: {name: p}\ndeleteOptions: {gracePeriodSeconds: 7}\n",
		"protobuf":      encode(protobuf.NewSerializer(s, s)),
		"CBOR":          encode(cbor.NewSerializer(s, s)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readEviction(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
			if err != nil || got.Name != "p" || got.DeleteOptions == nil || *got.DeleteOptions.GracePeriodSeconds != 7 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if _, err := readEviction(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"kind":"Pod","apiVersion":"v1"}`))); err == nil {
		t.Error("a pod is taken for an eviction")
	}
}

func TestCheckResize(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for name, text := range map[corev1.ResourceName]string{"cpu": cpu, "memory": memory} {
			if text != "" {
				out[name] = resource.MustParse(text)
			}
		}
		return out
	}
	pod := func(requests, limits corev1.ResourceList) *pcorev1.Pod {
		p := &pcorev1.Pod{}
		p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}
		return p
	}
	with := func(p *pcorev1.Pod, change func(*pcorev1.Pod)) *pcorev1.Pod {
		change(p)
		return p
	}
	for _, c := range []struct {
		name         string
		old, changed *pcorev1.Pod
		want         string
	}{
		{"more", pod(list("1", "1Gi"), nil), pod(list("2", "2Gi"), nil), ""},
		{"less, and a limit", pod(list("1", "1Gi"), nil), pod(list("500m", "1Gi"), list("2", "")), ""},
		{"a request taken away", pod(list("1", "1Gi"), nil), pod(list("1", ""), nil), "resource requests cannot be removed"},
		{"a limit taken away", pod(nil, list("2", "1Gi")), pod(list("1", ""), list("2", "")), "resource limits cannot be removed"},
		{"another class", pod(list("1", "1Gi"), list("1", "2Gi")), pod(list("1", "1Gi"), list("1", "1Gi")), "Pod QOS Class may not change"},
		{"from best effort", pod(nil, nil), pod(list("1", ""), nil), "Pod QOS Class may not change"},
		{"another resource", pod(list("1", ""), nil), with(pod(list("1", ""), nil), func(p *pcorev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["ephemeral-storage"] = resource.MustParse("1Gi")
		}), "only cpu and memory resources are mutable"},
		{"the policy", pod(list("1", ""), nil), with(pod(list("1", ""), nil), func(p *pcorev1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: "RestartContainer"}}
		}), "only cpu and memory resources are mutable"},
		{"a static pod", with(pod(list("1", ""), nil), func(p *pcorev1.Pod) { p.Annotations = map[string]string{mirrorAnnotation: "x"} }),
			pod(list("2", ""), nil), "static pods cannot be resized"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := checkResize(c.old, c.changed).ToAggregate()
			if (got == nil) != (c.want == "") || got != nil && !strings.Contains(fmt.Sprint(got), c.want) {
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
}

func TestTakeResources(t *testing.T) {
	into := &corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "a", Image: "x"}, {Name: "b"}}}
	from := &corev1.PodSpec{NodeName: "other", Containers: []corev1.Container{{Name: "a", Image: "y", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}}
	takeResources(into, from)
	if into.NodeName != "n" || into.Containers[0].Image != "x" || into.Containers[0].Resources.Requests.Cpu().String() != "1" || len(into.Containers) != 2 {
		t.Errorf("got %+v", into)
	}
}

func TestChoosePort(t *testing.T) {
	spec := &corev1.PodSpec{Containers: []corev1.Container{{}, {Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}, {Name: "debug", ContainerPort: 6060}}}}}
	for port, want := range map[string]int32{"": 8080, "web": 8080, "debug": 6060, "99": 99, "none": 0} {
		if got, err := choosePort(spec, port); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: got %d, %v", port, got, err)
		}
	}
}
