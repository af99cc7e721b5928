// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package floor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// Recorder collects how long each call took. Its zero value is ready, and it is safe for concurrent use.
type Recorder struct {
	mu    sync.Mutex
	calls map[string][]time.Duration
}

// Observe is for cri.WithObserver.
func (r *Recorder) Observe(method string, took time.Duration, err error) {
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls == nil {
		r.calls = map[string][]time.Duration{}
	}
	r.calls[method] = append(r.calls[method], took)
}

// take returns the medians so far and begins anew.
func (r *Recorder) take() map[string]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	medians := map[string]time.Duration{}
	for method, times := range r.calls {
		medians[method] = median(times)
	}
	r.calls = nil
	return medians
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// Options say what to run.
type Options struct {
	// Image is pulled first if the runtime doesn't have it.
	Image string
	Pods  int
	// LogDir is an existing folder for the containers' logs; the caller removes it.
	LogDir string
	// SandboxProfile is the path of the seccomp profile of the sandboxes' own processes; empty: the runtime's default.
	SandboxProfile string
	// Rest is called before each measurement, after the pods of the last one were removed; nil: nothing is waited for.
	Rest func(context.Context) error
}

// Result is one measurement.
type Result struct {
	Pods     int           `json:"pods"`
	Parallel int           `json:"parallel"`
	Total    time.Duration `json:"totalNanoseconds"`
	// P50 is the median of each call.
	P50 map[string]time.Duration `json:"p50Nanoseconds"`
}

// steps are the calls that count, in their order.
var steps = []string{"RunPodSandbox", "CreateContainer", "StartContainer"}

// Steps is a line of the medians.
func (r Result) Steps() string {
	var b strings.Builder
	for _, step := range steps {
		fmt.Fprintf(&b, " %s %s", step, r.P50[step].Round(time.Millisecond))
	}
	return b.String()
}

// Best measures each level of parallelism and returns the fastest and all of them. Of a level's rounds the median
// counts. The pods of each round are removed before the next begins.
func Best(ctx context.Context, service runtime.Service, recorder *Recorder, o Options, levels []int, rounds int) (Result, []Result, error) {
	if _, err := ensureImage(ctx, service, o.Image); err != nil {
		return Result{}, nil, err
	}
	// The first pod pays for what is set up once: bridge, page cache.
	if _, err := round(ctx, service, recorder, Options{Image: o.Image, Pods: 1, LogDir: o.LogDir, SandboxProfile: o.SandboxProfile}, 1); err != nil {
		return Result{}, nil, err
	}
	var all []Result
	for _, level := range levels {
		var results []Result
		for range rounds {
			if o.Rest != nil {
				if err := o.Rest(ctx); err != nil {
					return Result{}, nil, err
				}
			}
			result, err := round(ctx, service, recorder, o, level)
			if err != nil {
				return Result{}, nil, err
			}
			results = append(results, result)
		}
		slices.SortFunc(results, func(a, b Result) int { return int(a.Total - b.Total) })
		all = append(all, results[len(results)/2])
	}
	best := slices.MinFunc(all, func(a, b Result) int { return int(a.Total - b.Total) })
	return best, all, nil
}

func ensureImage(ctx context.Context, images runtime.Images, image string) (string, error) {
	spec := &runtimeapi.ImageSpec{Image: image}
	found, err := images.ImageStatus(ctx, spec)
	if err != nil {
		return "", fmt.Errorf("looking for the image: %w", err)
	}
	if found != nil {
		return found.GetId(), nil
	}
	ref, err := images.PullImage(ctx, spec, nil, nil)
	if err != nil {
		return "", fmt.Errorf("pulling the image: %w", err)
	}
	return ref, nil
}

func round(ctx context.Context, service runtime.Service, recorder *Recorder, o Options, parallel int) (result Result, err error) {
	recorder.take()
	defer func() { err = errors.Join(err, removeAll(context.WithoutCancel(ctx), service)) }()
	numbers := make(chan int)
	failures := make(chan error, parallel)
	start := time.Now()
	for range parallel {
		go func() {
			var failed error
			for number := range numbers {
				if failed == nil {
					failed = o.pod(ctx, service, number)
				}
			}
			failures <- failed
		}()
	}
	for number := range o.Pods {
		numbers <- number
	}
	close(numbers)
	for range parallel {
		err = errors.Join(err, <-failures)
	}
	return Result{Pods: o.Pods, Parallel: parallel, Total: time.Since(start), P50: recorder.take()}, err
}

// Cgroup is the parent of all pods' cgroups; who measures removes it afterwards.
const Cgroup = "pinnace-crifloor"

// label marks the pods that are ours to remove.
const label = "pinnace.dev/crifloor"

// pod runs one pod: what a pod without requests is made of on a node of Kubernetes, such as its log, its own cgroup and the sandbox's
// seccomp profile, because leaving these out would measure another pod.
func (o Options) pod(ctx context.Context, service runtime.Service, number int) error {
	sandbox := o.sandbox(number)
	name := sandbox.Metadata.Name
	if err := os.MkdirAll(sandbox.LogDirectory, 0o755); err != nil {
		return fmt.Errorf("making the folder of the logs: %w", err)
	}
	id, err := service.RunPodSandbox(ctx, sandbox, "")
	if err != nil {
		return fmt.Errorf("running the sandbox of %s: %w", name, err)
	}
	container, err := service.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
		Image:    &runtimeapi.ImageSpec{Image: o.Image},
		Labels:   map[string]string{label: name},
		LogPath:  "main/0.log",
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuPeriod: 100000, OomScoreAdj: 1000},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces()},
		},
	}, sandbox)
	if err != nil {
		return fmt.Errorf("creating the container of %s: %w", name, err)
	}
	if err := service.StartContainer(ctx, container); err != nil {
		return fmt.Errorf("starting the container of %s: %w", name, err)
	}
	return nil
}

func (o Options) sandbox(number int) *runtimeapi.PodSandboxConfig {
	name := fmt.Sprintf("floor-%d", number)
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "crifloor", Uid: fmt.Sprintf("%s-%d", name, time.Now().UnixNano())},
		Hostname:     name,
		LogDirectory: filepath.Join(o.LogDir, name),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.97.0.10"}, Searches: []string{"svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels:       map[string]string{label: name},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: fmt.Sprintf("/%s/besteffort/pod%d", Cgroup, number),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaces(),
				Seccomp:          runtime.SandboxSeccomp(o.SandboxProfile),
			},
		},
	}
}

func namespaces() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
}

func removeAll(ctx context.Context, service runtime.Service) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	sandboxes, err := service.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing the pods to remove: %w", err)
	}
	var failures []error
	for _, s := range sandboxes {
		if s.GetLabels()[label] == "" {
			continue
		}
		failures = append(failures, service.StopPodSandbox(ctx, s.GetId()), service.RemovePodSandbox(ctx, s.GetId()))
	}
	return errors.Join(failures...)
}
