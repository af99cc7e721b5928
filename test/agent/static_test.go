// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
)

// writeManifest puts a static pod into the node's folder.
func (w *world) writeManifest(t *testing.T, file, namespace, name, argument string) {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: %q, args: [sleep, %q]}
`, name, namespace, testImage, argument)
	if err := os.WriteFile(filepath.Join(w.manifests, file), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// containersNamed are the containers of a pod's name, in whichever state.
func (w *world) containersNamed(t *testing.T, name string) []*runtimeapi.Container {
	t.Helper()
	list, err := w.runtime.ListContainers(t.Context(), &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.namespace": w.namespace, "io.kubernetes.pod.name": name},
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func storyStatic(t *testing.T, w *world) {
	node := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.node}}
	if err := w.client.Create(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.writeManifest(t, "web.yaml", w.namespace, "web", "/tmp/one")
	mirror := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web-" + w.node}}
	got := w.until(t, mirror, "shown as ready", ready)
	if got.Annotations[agent.MirrorAnnotation] == "" || got.OwnerReferences[0].UID != node.UID || len(got.Finalizers) != 0 {
		t.Errorf("the mirror: %+v", got.ObjectMeta)
	}
	before := w.containersNamed(t, mirror.Name)
	if len(before) != 1 {
		t.Fatalf("%d containers run", len(before))
	}

	t.Run("a deleted mirror comes back, and the pod runs on", func(t *testing.T) {
		w.delete(t, got)
		w.until(t, mirror, "shown again", func(p *pcorev1.Pod) bool { return ready(p) && p.UID != got.UID })
		if now := w.containersNamed(t, mirror.Name); len(now) != 1 || now[0].Id != before[0].Id {
			t.Errorf("the containers are %v", now)
		}
	})
	t.Run("a restart of the agent adopts it", func(t *testing.T) {
		w.stopAgent()
		w.start()
		other := w.create(t, w.pod("static-other", "sleep"))
		w.until(t, other, "ready", ready)
		if now := w.containersNamed(t, mirror.Name); len(now) != 1 || now[0].Id != before[0].Id {
			t.Errorf("the containers are %v", now)
		}
		w.delete(t, other)
		w.until(t, other, "gone", gone)
	})
	t.Run("a file that is broken leaves it as it was", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(w.manifests, "web.yaml"), []byte("nonsense"), 0o644); err != nil {
			t.Fatal(err)
		}
		w.writeManifest(t, "second.yaml", w.namespace, "second", "/tmp/one")
		w.until(t, &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "second-" + w.node}}, "shown as ready", ready)
		if now := w.containersNamed(t, mirror.Name); len(now) != 1 || now[0].Id != before[0].Id {
			t.Errorf("the containers are %v", now)
		}
	})
	t.Run("a changed file is another pod", func(t *testing.T) {
		hash := got.Annotations[agent.MirrorAnnotation]
		w.writeManifest(t, "web.yaml", w.namespace, "web", "/tmp/two")
		w.until(t, mirror, "replaced", func(p *pcorev1.Pod) bool { return ready(p) && p.Annotations[agent.MirrorAnnotation] != hash })
		if now := w.containersNamed(t, mirror.Name); len(now) != 1 || now[0].Id == before[0].Id {
			t.Errorf("the containers are %v", now)
		}
	})
	t.Run("a pod that ends is started again", func(t *testing.T) {
		id := w.containersNamed(t, mirror.Name)[0].Id
		if err := w.runtime.StopContainer(t.Context(), id, 0); err != nil {
			t.Fatal(err)
		}
		w.until(t, mirror, "restarted", func(p *pcorev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	})
	t.Run("a file that goes takes its pod along", func(t *testing.T) {
		for _, file := range []string{"web.yaml", "second.yaml"} {
			if err := os.Remove(filepath.Join(w.manifests, file)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"web-", "second-"} {
			p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name + w.node}}
			w.until(t, p, "gone", gone)
			if left := w.containersNamed(t, p.Name); len(left) != 0 {
				t.Errorf("containers are left: %v", left)
			}
		}
	})
	if err := w.client.Delete(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}
