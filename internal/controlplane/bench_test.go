// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/test/env"
)

// BenchmarkStart starts a durable control plane with Pinnace's CRDs, cold and
// then warm, and reports the times and, once it has settled, the memory of
// each process. Run it with -bench=Start -benchtime=1x. Further flags and
// collector targets come from the environment, for comparing:
//
//	PINNACE_BENCH_GOGC=25 PINNACE_BENCH_FLAGS=profiling=true,watch-cache=false PINNACE_BENCH_CRDS=/some/crds
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		o := benchOptions(b)
		cold := measureStart(b, o, func(cp *controlplane.ControlPlane) { installCRDs(b, cp) })
		warm := measureStart(b, o, func(cp *controlplane.ControlPlane) {
			time.Sleep(settle())
			sum := 0.0
			for _, p := range cp.Processes() {
				rss, anon := memory(b, p.PID, "VmRSS"), memory(b, p.PID, "RssAnon")
				b.ReportMetric(rss, p.Name+"-RSS-MB")
				b.ReportMetric(anon, p.Name+"-anon-MB")
				sum += rss
			}
			b.ReportMetric(sum, "sum-RSS-MB")
		})
		b.ReportMetric(cold.Seconds(), "cold-s")
		b.ReportMetric(warm.Seconds(), "warm-s")
	}
}

// BenchmarkWrites creates Pinnace pods from eight writers at once and reports
// what one costs kube-apiserver and etcd in processor time: the price of a
// collector that runs more often.
func BenchmarkWrites(b *testing.B) {
	const pods, writers = 2000, 8
	for b.Loop() {
		measureStart(b, benchOptions(b), func(cp *controlplane.ControlPlane) {
			installCRDs(b, cp)
			config := cp.RESTConfig()
			config.QPS = -1
			c, err := client.New(config, client.Options{})
			if err != nil {
				b.Fatal(err)
			}
			before := processorTimes(b, cp)
			begun := time.Now()
			var group errgroup.Group
			for w := range writers {
				group.Go(func() error {
					for i := w; i < pods; i += writers {
						if err := c.Create(b.Context(), benchPod(i)); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(pods/time.Since(begun).Seconds(), "creates/s")
			for name, after := range processorTimes(b, cp) {
				b.ReportMetric(float64((after-before[name]).Microseconds())/pods, name+"-µs/create")
			}
		})
	}
}

// BenchmarkStatusWrites writes the status of one object after another, each of a kind, and reports what one write costs kube-apiserver in
// processor time, its collections included.
func BenchmarkStatusWrites(b *testing.B) {
	const writes = 500
	for b.Loop() {
		measureStart(b, benchOptions(b), func(cp *controlplane.ControlPlane) {
			installCRDs(b, cp)
			config := cp.RESTConfig()
			config.QPS = -1
			c, err := client.New(config, client.Options{})
			if err != nil {
				b.Fatal(err)
			}
			for _, obj := range []*unstructured.Unstructured{benchPod(0), benchOwner("ReplicaSet"), benchOwner("Deployment"), benchOwner("StatefulSet")} {
				if err := c.Create(b.Context(), obj); err != nil {
					b.Fatal(err)
				}
				before := processorTimes(b, cp)
				for i := range writes {
					value := map[string]any{"observedGeneration": int64(i), "replicas": int64(20)}
					if obj.GetKind() == "Pod" {
						value = map[string]any{"phase": "Running", "podIP": fmt.Sprintf("10.0.0.%d", i%250)}
					}
					obj.Object["status"] = value
					if err := c.Status().Update(b.Context(), obj); err != nil {
						b.Fatal(err)
					}
				}
				for name, after := range processorTimes(b, cp) {
					b.ReportMetric(float64((after-before[name]).Microseconds())/writes, name+"-µs/"+obj.GetKind())
				}
			}
		})
	}
}

// benchOwner is an object with a template of pods.
func benchOwner(kind string) *unstructured.Unstructured {
	labels := map[string]any{"app": "bench"}
	spec := map[string]any{
		"replicas": int64(20), "selector": map[string]any{"matchLabels": labels},
		"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": benchPod(0).Object["spec"]},
	}
	if kind == "StatefulSet" {
		spec["serviceName"] = "bench"
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps.pinnace.dev/v1", "kind": kind, "metadata": map[string]any{"namespace": "default", "name": "bench"}, "spec": spec,
	}}
}

func benchPod(i int) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "core.pinnace.dev/v1", "kind": "Pod",
		"metadata": map[string]any{"namespace": "default", "name": fmt.Sprintf("pod-%d", i)},
		"spec": map[string]any{"containers": []any{map[string]any{
			"name": "main", "image": "localhost:5000/hello:1",
			"env":   []any{map[string]any{"name": "A", "value": "b"}},
			"ports": []any{map[string]any{"containerPort": int64(8080)}},
		}}},
	}}
}

// processorTimes reads user and system time, in ticks of 10 ms.
func processorTimes(b *testing.B, cp *controlplane.ControlPlane) map[string]time.Duration {
	b.Helper()
	out := map[string]time.Duration{}
	for _, p := range cp.Processes() {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "stat"))
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		out[p.Name] = time.Duration(user+system) * 10 * time.Millisecond
	}
	return out
}

func benchOptions(b *testing.B) controlplane.Options {
	b.Helper()
	gogc := os.Getenv("PINNACE_BENCH_GOGC")
	o := controlplane.Options{
		DataDir: b.TempDir(), Assets: env.Assets(b), APIPort: 19443,
		Tuning:             controlplane.Tuning{EtcdGOGC: gogc, APIServerGOGC: gogc, ControllerManagerGOGC: gogc},
		AllAPIGroups:       os.Getenv("PINNACE_BENCH_ALL_GROUPS") != "",
		ReturnStartupPages: os.Getenv("PINNACE_BENCH_RETURN") != "",
	}
	if flags := os.Getenv("PINNACE_BENCH_FLAGS"); flags != "" {
		o.ExtraAPIServerArgs = map[string]string{}
		for _, flag := range strings.Split(flags, ",") {
			name, value, _ := strings.Cut(flag, "=")
			o.ExtraAPIServerArgs[name] = strings.ReplaceAll(value, ";", ",")
		}
	}
	return o
}

func installCRDs(b *testing.B, cp *controlplane.ControlPlane) {
	b.Helper()
	bases := os.Getenv("PINNACE_BENCH_CRDS")
	if bases == "" {
		root, err := env.Root()
		if err != nil {
			b.Fatal(err)
		}
		bases = filepath.Join(root, "config", "crd", "bases")
	}
	crds, err := envtest.InstallCRDs(cp.RESTConfig(), envtest.CRDInstallOptions{
		Paths: []string{bases}, ErrorIfPathMissing: true, MaxTime: time.Minute, PollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(crds)), "crds")
}

// settle is how long memory is given to come to rest.
func settle() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PINNACE_BENCH_SETTLE")); err == nil {
		return d
	}
	return 20 * time.Second
}

func measureStart(b *testing.B, o controlplane.Options, then func(*controlplane.ControlPlane)) time.Duration {
	b.Helper()
	begun := time.Now()
	cp, err := controlplane.Start(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(begun)
	then(cp)
	if err := cp.Stop(b.Context()); err != nil {
		b.Fatal(err)
	}
	return took
}

// memory reads a field of /proc/PID/status, in MB.
func memory(b *testing.B, pid int, field string) float64 {
	b.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var kb float64
		if _, err := fmt.Sscanf(line, field+": %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	b.Fatalf("process %d has no %s", pid, field)
	return 0
}
