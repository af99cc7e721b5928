// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func TestLogged(t *testing.T) {
	const (
		created = runtimeapi.ContainerState_CONTAINER_CREATED
		runs    = runtimeapi.ContainerState_CONTAINER_RUNNING
		exited  = runtimeapi.ContainerState_CONTAINER_EXITED
	)
	held := func(list ...any) (out []*runtimeapi.Container) {
		for i := 0; i < len(list); i += 2 {
			out = append(out, &runtimeapi.Container{Id: list[i].(string), State: list[i+1].(runtimeapi.ContainerState)})
		}
		return out
	}
	waiting := func(reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	crashed := waiting("CrashLoopBackOff")
	crashed.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://b"}
	for _, c := range []struct {
		name      string
		status    corev1.ContainerStatus
		previous  bool
		held      []*runtimeapi.Container
		want, err string
	}{
		{"running", corev1.ContainerStatus{}, false, held("b", runs, "a", exited), "b", ""},
		{"about to start again", crashed, false, held("c", created, "b", exited), "b", ""},
		{"in backoff", crashed, false, held("b", exited, "a", exited), "b", ""},
		{"the one before a running one", corev1.ContainerStatus{}, true, held("b", runs, "a", exited), "a", ""},
		{"the one before, in backoff", crashed, true, held("b", exited, "a", exited), "b", ""},
		{"none before", corev1.ContainerStatus{}, true, held("a", runs), "", `previous terminated container "main" in pod "p" not found`},
		{"none before, ended", corev1.ContainerStatus{}, true, held("a", exited), "", `previous terminated container "main" in pod "p" not found`},
		{"not yet", waiting("ContainerCreating"), false, nil, "", `container "main" in pod "p" is waiting to start: ContainerCreating`},
		{"only created", waiting("ContainerCreating"), false, held("a", created), "", `is waiting to start: ContainerCreating`},
		{"no image", waiting("ErrImagePull"), false, nil, "", `is waiting to start: image can't be pulled`},
		{"still no image", waiting("ImagePullBackOff"), false, nil, "", `is waiting to start: trying and failing to pull image`},
		{"nothing known", corev1.ContainerStatus{}, false, nil, "", `is waiting to start: no logs yet`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := &pcorev1.Pod{}
			c.status.Name, pod.Name = "main", "p"
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{c.status}
			got, err := logged(pod, "main", c.previous, c.held)
			if got != c.want || (err == nil) != (c.err == "") || (err != nil && (!apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), c.err))) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestParseLogQuery(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		query string
		want  logQuery
		err   string
	}{
		{"", logQuery{tail: -1, limit: -1, stream: "All"}, ""},
		{"follow=true&previous=1&timestamps=true", logQuery{follow: true, previous: true, timestamps: true, tail: -1, limit: -1, stream: "All"}, ""},
		{"tailLines=5&limitBytes=7", logQuery{tail: 5, limit: 7, stream: "All"}, ""},
		{"tail=5", logQuery{tail: 5, limit: -1, stream: "All"}, ""},
		{"tail=all", logQuery{tail: -1, limit: -1, stream: "All"}, ""},
		{"sinceSeconds=65", logQuery{tail: -1, limit: -1, since: now.Add(-65 * time.Second), stream: "All"}, ""},
		{"sinceTime=2026-01-01T00:00:00Z", logQuery{tail: -1, limit: -1, since: now.Truncate(24 * time.Hour).Add(-24 * time.Hour), stream: "All"}, ""},
		{"stream=Stderr", logQuery{tail: -1, limit: -1, stream: "Stderr"}, ""},
		{"follow=maybe", logQuery{}, `follow is "maybe"`},
		{"tailLines=-1", logQuery{}, `tailLines is "-1"`},
		{"limitBytes=0", logQuery{}, `limitBytes is "0"`},
		{"sinceSeconds=0", logQuery{}, `sinceSeconds is "0"`},
		{"sinceTime=yesterday", logQuery{}, `sinceTime is "yesterday"`},
		{"sinceTime=2026-01-01T00:00:00Z&sinceSeconds=1", logQuery{}, "at most one"},
		{"stream=Stdin", logQuery{}, `stream is "Stdin"`},
		{"stream=Stdout&tailLines=1", logQuery{}, "both streams"},
	} {
		t.Run(c.query, func(t *testing.T) {
			query, err := url.ParseQuery(c.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseLogQuery(query, now)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(logQuery{})); err != nil || diff != "" {
				t.Errorf("error %v, difference: %s", err, diff)
			}
		})
	}
}

// asked is a gate that lets nobody in and notes what was asked.
type asked struct{ rights []string }

func (a *asked) Authenticate(*http.Request) (*authenticationv1.UserInfo, error) {
	return &authenticationv1.UserInfo{Username: "ann"}, nil
}

func (a *asked) Authorize(_ context.Context, _ *authenticationv1.UserInfo, attributes ...authorizationv1.ResourceAttributes) error {
	a.rights = nil
	for _, at := range attributes {
		a.rights = append(a.rights, at.Verb+" "+at.Resource+"/"+at.Subresource+"."+at.Group+" "+at.Name)
	}
	return apierrors.NewUnauthorized("no")
}

// TestEveryPathIsGuarded shows which right each path wants, and that none answers without.
func TestEveryPathIsGuarded(t *testing.T) {
	proxy := []string{"create nodes/proxy.core.pinnace.dev n"}
	for path, want := range map[string][]string{
		"GET /containerLogs/d/p/c": {"get nodes/proxy.core.pinnace.dev n"},
		"GET /exec/d/p/c":          proxy,
		"POST /exec/d/p/u/c":       proxy,
		"GET /attach/d/p/c":        proxy,
		"POST /attach/d/p/u/c":     proxy,
		"GET /portForward/d/p":     proxy,
		"POST /portForward/d/p/u":  proxy,
		"GET /pods":                {"get nodes/pods.core.pinnace.dev n", "get nodes/proxy.core.pinnace.dev n"},
		"GET /stats/summary":       {"get nodes/stats.core.pinnace.dev n"},
		"GET /metrics":             {"get nodes/metrics.core.pinnace.dev n"},
		"GET /metrics/resource":    {"get nodes/metrics.core.pinnace.dev n"},
		"GET /metrics/cadvisor":    {"get nodes/metrics.core.pinnace.dev n"},
		"POST /checkpoint/d/p/c":   {"create nodes/checkpoint.core.pinnace.dev n"},
		"GET /anything":            {"get nodes/proxy.core.pinnace.dev n"},
		"DELETE /pods":             {"get nodes/proxy.core.pinnace.dev n"},
	} {
		t.Run(path, func(t *testing.T) {
			gate := &asked{}
			server := New(Options{NodeName: "n", Gate: gate, Metrics: http.NotFoundHandler()})
			method, target, _ := strings.Cut(path, " ")
			answer := httptest.NewRecorder()
			server.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, target, nil))
			if diff := cmp.Diff(want, gate.rights); diff != "" || answer.Code != http.StatusUnauthorized {
				t.Errorf("answer %d, difference: %s", answer.Code, diff)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	labels := func(container string) map[string]string {
		return map[string]string{labelPodUID: "u", labelPodName: "p", labelPodNamespace: "d", labelContainerName: container}
	}
	value := func(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
	stats := func(id string, cpu, mem uint64) *runtimeapi.ContainerStats {
		return &runtimeapi.ContainerStats{
			Attributes: &runtimeapi.ContainerAttributes{Id: id},
			Cpu:        &runtimeapi.CpuUsage{Timestamp: 5, UsageCoreNanoSeconds: value(cpu)},
			Memory:     &runtimeapi.MemoryUsage{Timestamp: 5, WorkingSetBytes: value(mem)},
		}
	}
	containers := []*runtimeapi.Container{
		{Id: "2", Labels: labels("b"), CreatedAt: 20}, {Id: "1", Labels: labels("a"), CreatedAt: 10}, {Id: "3"},
	}
	// "3" is no pod's of ours, "4" has ended meanwhile.
	all := []*runtimeapi.ContainerStats{stats("1", 100, 1000), stats("2", 200, 2000), stats("3", 1, 1), stats("4", 1, 1)}
	got := gatherUsage(containers, all, nil)
	want := []podUsage{{
		namespace: "d", name: "p", uid: "u", started: time.Unix(0, 10),
		cpu: counter{at: time.Unix(0, 5), total: 300}, memory: memory{at: time.Unix(0, 5), workingSet: 3000},
		containers: []containerUsage{
			{name: "a", id: "1", started: time.Unix(0, 10), cpu: counter{at: time.Unix(0, 5), total: 100}, memory: memory{at: time.Unix(0, 5), workingSet: 1000}},
			{name: "b", id: "2", started: time.Unix(0, 20), cpu: counter{at: time.Unix(0, 5), total: 200}, memory: memory{at: time.Unix(0, 5), workingSet: 2000}},
		},
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(podUsage{}, containerUsage{}, counter{}, memory{}, networkUsage{})); diff != "" {
		t.Error(diff)
	}
	// The sandbox's own count, where there is one, holds what containers don't: the pause process, the page cache of those that ended.
	sandbox := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{Labels: labels("")},
		Linux:      &runtimeapi.LinuxPodSandboxStats{Cpu: &runtimeapi.CpuUsage{Timestamp: 6, UsageCoreNanoSeconds: value(333)}},
	}
	if got := gatherUsage(containers, all, []*runtimeapi.PodSandboxStats{sandbox}); len(got) != 1 || got[0].cpu.total != 333 || got[0].memory.workingSet != 3000 {
		t.Errorf("got %+v", got)
	}
}

func TestSample(t *testing.T) {
	e := &exposition{}
	e.sample("a", 1.5, time.Time{})
	e.sample("b", 12345678901, time.UnixMilli(7), "x", "1", "y", "quote \" slash \\ line \n")
	want := "a 1.5\n" + `b{x="1",y="quote \" slash \\ line \n"} 1.2345678901e+10 7` + "\n"
	if diff := cmp.Diff(want, e.String()); diff != "" {
		t.Error(diff)
	}
}

func TestBusyTime(t *testing.T) {
	if got := busyTime([]byte("cpu  1 2 3 1000 500 4 5 6 70 80\ncpu0 9 9\n")); got != 21*uint64(time.Second/100) {
		t.Errorf("got %d", got)
	}
}
