// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/placement"
	"github.com/pinnace-dev/pinnace/test/env"
)

// BenchmarkBinding compares ways to write a binding, by the CPU that the API server spends on one (docs/adr/0052). Run it alone:
//
//	go test ./test/workload -run '^$' -bench Binding -benchtime 500x
func BenchmarkBinding(b *testing.B) {
	e := env.Start(b)
	ctx := context.Background()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	if err := e.Client.Create(ctx, ns); err != nil {
		b.Fatal(err)
	}
	write := map[string]func(*pcorev1.Pod) error{
		"put": func(p *pcorev1.Pod) error {
			p.Spec.NodeName, p.Finalizers = "node", []string{placement.NodeFinalizer}
			p.ManagedFields = []metav1.ManagedFieldsEntry{{}}
			return e.Client.Update(ctx, p)
		},
		"merge-patch": func(p *pcorev1.Pod) error {
			return e.Client.Patch(ctx, &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}, bindPatch(p))
		},
		"merge-patch-metadata-answer": func(p *pcorev1.Pod) error {
			target := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}
			target.SetGroupVersionKind(pcorev1.GroupVersion.WithKind("Pod"))
			return e.Client.Patch(ctx, target, bindPatch(p))
		},
		"json-patch": func(p *pcorev1.Pod) error {
			body := fmt.Sprintf(`[{"op":"replace","path":"/metadata/resourceVersion","value":%q},{"op":"add","path":"/metadata/finalizers","value":["pinnace.dev/node"]},{"op":"add","path":"/metadata/managedFields","value":[{}]},{"op":"add","path":"/spec/nodeName","value":"node"}]`, p.ResourceVersion)
			target := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}
			target.SetGroupVersionKind(pcorev1.GroupVersion.WithKind("Pod"))
			return e.Client.Patch(ctx, target, client.RawPatch(types.JSONPatchType, []byte(body)))
		},
	}
	for _, round := range []string{"first", "second"} {
		for _, way := range []string{"put", "merge-patch", "merge-patch-metadata-answer", "json-patch"} {
			b.Run(way+"/"+round, func(b *testing.B) {
				pods := make([]*pcorev1.Pod, b.N)
				for i := range pods {
					pods[i] = benchPod(ns.Name, fmt.Sprintf("%s-%s-%d-%d", way, round, b.N, i))
					if err := e.Client.Create(ctx, pods[i]); err != nil {
						b.Fatal(err)
					}
				}
				<-time.After(300 * time.Millisecond) // what creating left to do isn't counted
				before := cpuOf(b, "kube-apiserver")
				b.ResetTimer()
				for _, p := range pods {
					if err := write[way](p); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((cpuOf(b, "kube-apiserver")-before).Microseconds())/float64(b.N), "apiserver-µs/op")
			})
		}
	}
}

func bindPatch(p *pcorev1.Pod) client.Patch {
	return client.RawPatch(types.MergePatchType, fmt.Appendf(nil,
		`{"metadata":{"uid":%q,"resourceVersion":%q,"finalizers":["pinnace.dev/node"],"managedFields":[{}]},"spec":{"nodeName":"node"}}`, p.UID, p.ResourceVersion))
}

func benchPod(namespace, name string) *pcorev1.Pod {
	t := template(map[string]string{"app": "bench"}, "image:1")
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: t.Labels}, Spec: t.Spec}
	for i := range 5 {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprint("NAME", i), Value: "value"})
	}
	return p
}

// cpuOf is the CPU time that this test's child of that name has used.
func cpuOf(b *testing.B, name string) time.Duration {
	b.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for _, entry := range entries {
		raw, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		open, end := strings.IndexByte(string(raw), '('), strings.LastIndexByte(string(raw), ')')
		fields := strings.Fields(string(raw[end+1:]))
		if !strings.HasPrefix(string(raw[open+1:end]), name) || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		return time.Duration(user+system) * 10 * time.Millisecond
	}
	b.Fatalf("no child is called %s", name)
	return 0
}
