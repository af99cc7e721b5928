// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// downStories stop the agent or the node, so they come last; each starts it again.
var downStories = []story{
	{"static pods", storyStatic},
	{"a node that goes down says so of its pods, and runs them again", storyGoDown},
	{"a graceful shutdown ends pods by their priority", storyShutDown},
}

func runDownStories(t *testing.T, w *world) {
	for _, story := range downStories {
		t.Run(story.name, func(t *testing.T) { story.run(t, w) })
	}
}

// running counts a pod's containers that run.
func (w *world) running(t *testing.T, pod *pcorev1.Pod) int {
	t.Helper()
	list, err := w.runtime.ListContainers(t.Context(), &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(pod.UID)},
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func storyGoDown(t *testing.T, w *world) {
	always, none := corev1.ContainerRestartPolicyAlways, int32(0)
	pod, limited := w.pod("down", "sleep"), w.pod("down-limited", "sleep")
	pod.Spec.InitContainers = []corev1.Container{{Name: "side", Image: testImage, Args: []string{"sleep"}, RestartPolicy: &always}}
	limited.Spec.MaxRestarts = &none
	limited.Spec.RestartPolicy = corev1.RestartPolicyNever
	for _, p := range []*pcorev1.Pod{pod, limited} {
		w.until(t, w.create(t, p), "ready", ready)
	}
	if err := w.agent.GoDown(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*pcorev1.Pod{pod, limited} {
		got := w.until(t, p, "told to be down", func(p *pcorev1.Pod) bool { return p.Status.Reason == podstate.ReasonNodeDown })
		if got.Status.Phase != corev1.PodRunning || ready(got) || got.Status.Columns["status"] != "NodeDown" || w.running(t, p) != 0 {
			t.Errorf("%s: phase %s, columns %v, %d containers run", p.Name, got.Status.Phase, got.Status.Columns, w.running(t, p))
		}
	}
	w.stopAgent()
	w.start()
	got := w.until(t, pod, "ready again", ready)
	if got.UID != pod.UID || got.Status.Reason != "" || got.Status.ContainerStatuses[0].RestartCount != 1 {
		t.Errorf("after the restart: %+v", got.Status)
	}
	for _, p := range []*pcorev1.Pod{pod, limited} {
		w.delete(t, p)
		w.until(t, p, "gone", gone)
	}
}

func storyShutDown(t *testing.T, w *world) {
	plain, critical := w.pod("plain", "sleep"), w.pod("critical", "sleep")
	critical.Spec.Priority = new(int32(podstate.PriorityClusterCritical))
	critical.Spec.PriorityClassName = "system-cluster-critical"
	for _, p := range []*pcorev1.Pod{plain, critical} {
		w.until(t, w.create(t, p), "ready", ready)
	}
	late := w.pod("late", "sleep")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.agent.ShutDown(ctx, agent.ShutdownOptions{Grace: 20 * time.Second, Critical: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	w.create(t, late)
	var ends []time.Time
	for _, p := range []*pcorev1.Pod{plain, critical} {
		got := w.until(t, p, "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
		c := podstate.FindCondition(got.Status.Conditions, corev1.DisruptionTarget)
		if got.Status.Reason != "Terminated" || c == nil || c.Reason != corev1.PodReasonTerminationByKubelet || w.running(t, p) != 0 {
			t.Errorf("%s: %+v", p.Name, got.Status)
		}
		ends = append(ends, got.Status.ContainerStatuses[0].State.Terminated.FinishedAt.Time)
	}
	if ends[1].Before(ends[0]) {
		t.Errorf("the critical pod ended at %s, before the other one at %s", ends[1], ends[0])
	}
	got := w.until(t, late, "refused", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if got.Status.Reason != "NodeShutdown" {
		t.Errorf("a pod that came late was refused with %q", got.Status.Reason)
	}
	for _, p := range []*pcorev1.Pod{plain, critical, late} {
		w.delete(t, p)
		w.until(t, p, "gone", gone)
		assertNothingLeft(t, w, p)
	}
	w.stopAgent()
	w.start()
}
