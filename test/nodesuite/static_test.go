// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/setup"
)

// Static pods: https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/

// staticPod is a pod from a file. Its run is that of the mirror.
type staticPod struct {
	*caseRun
	file string
}

// withManifests runs an agent that has a folder of static pods, in which none is left at the end.
func (w *world) withManifests(t *testing.T, change func(o *setup.AgentOptions), do func(ctx context.Context, folder string) error) error {
	t.Helper()
	folder := filepath.Join(w.dir, "manifests")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	err := w.withOptions(t.Context(), func(o *setup.AgentOptions) {
		o.StaticPodDir = folder
		change(o)
	}, func(ctx context.Context) error { return do(ctx, folder) })
	return errors.Join(err, os.RemoveAll(folder))
}

// makeStatic writes a pod's manifest into the folder; the variable WHICH in its container says what of it is there.
func (w *world) makeStatic(t *testing.T, folder, name, which string) (*staticPod, error) {
	t.Helper()
	pod := &pcorev1.Pod{}
	pod.Namespace, pod.Name = w.env.Namespace(t), name+"-"+nodeName
	s := &staticPod{caseRun: &caseRun{world: w, pod: pod}, file: filepath.Join(folder, name+".yaml")}
	var err error
	if s.is, err = newExpressions(w, s.caseRun); err != nil {
		return nil, err
	}
	return s, s.write(name, which)
}

// write puts the file there in one step, as who edits a manifest by hand may not.
func (s *staticPod) write(name, which string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: %q, args: [sleep], env: [{name: WHICH, value: %s}]}]
`, name, s.pod.Namespace, testImage, which)
	made := s.file + ".new"
	// A name with a dot in front is no manifest's.
	made = filepath.Join(filepath.Dir(made), "."+filepath.Base(made))
	return errors.Join(os.WriteFile(made, []byte(text), 0o600), os.Rename(made, s.file))
}

// runs waits until the container of that content runs and the mirror shows it.
func (s *staticPod) runs(ctx context.Context, which string) error {
	return s.until(ctx, fmt.Sprintf("is.Ready == 'True' && exec('main', 'env WHICH') == %q", which), patience)
}

// container is the ID of the container, uid that of the pod on the node: the mirror has another.
func (s *staticPod) container() string { return s.last.Status.ContainerStatuses[0].ContainerID }
func (s *staticPod) uid() types.UID {
	return types.UID(s.last.Annotations["kubernetes.io/config.hash"])
}

// nothingLeftOf waits until the node has nothing of a pod any more: nobody tells of it.
func (w *world) nothingLeftOf(ctx context.Context, uid types.UID) error {
	pod := &pcorev1.Pod{}
	pod.UID = uid
	return poll(ctx, patience, func(ctx context.Context) error { return w.nothingLeft(ctx, pod) })
}

// disturbStatic walks through the life of a static pod: made, its mirror deleted, its agent restarted and killed, changed, removed.
func disturbStatic(t *testing.T, w *world) error {
	return w.withManifests(t, func(*setup.AgentOptions) {}, func(ctx context.Context, folder string) error {
		s, err := w.makeStatic(t, folder, "web", "one")
		if err != nil {
			return err
		}
		if err := s.runs(ctx, "one"); err != nil {
			return err
		}
		if ok, err := s.is.eval("pod.metadata.annotations['kubernetes.io/config.mirror'] == pod.metadata.annotations['kubernetes.io/config.hash'] && "+
			"pod.metadata.ownerReferences[0].kind == 'Node' && !has(pod.metadata.finalizers)", s.last); err != nil || !ok {
			return fmt.Errorf("the mirror is none: %v%s", s.last.ObjectMeta, s.explain(err))
		}
		first, uid := s.container(), s.uid()
		if err := errors.Join(s.mirrorComesBack(ctx, first), s.outlivesAgents(ctx, t, first)); err != nil {
			return err
		}
		if err := errors.Join(s.write("web", "two"), s.runs(ctx, "two")); err != nil {
			return err
		}
		if s.container() == first || s.uid() == uid {
			return fmt.Errorf("the changed file is the same pod%s", s.explain(nil))
		}
		if err := w.nothingLeftOf(ctx, uid); err != nil {
			return fmt.Errorf("what the file said before: %w", err)
		}
		uid = s.uid()
		return errors.Join(os.Remove(s.file), s.until(ctx, "gone", patience), w.nothingLeftOf(ctx, uid))
	})
}

// mirrorComesBack deletes the mirror: another one shows the same container.
func (s *staticPod) mirrorComesBack(ctx context.Context, id string) error {
	mirror := s.last.UID
	if err := s.world.client.Delete(ctx, s.last); err != nil {
		return err
	}
	return s.until(ctx, fmt.Sprintf("pod.metadata.uid != %q && is.Ready == 'True' && c.main.containerID == %q && c.main.restartCount == 0", mirror, id), patience)
}

// outlivesAgents restarts the agent in order and by a kill: neither touches container or mirror.
func (s *staticPod) outlivesAgents(ctx context.Context, t *testing.T, id string) error {
	w, mirror := s.world, s.last.UID
	for _, stop := range []func(context.Context) error{w.stopAgent, w.killAgent} {
		if err := errors.Join(stop(ctx), w.runAgent(ctx), w.lookedAt(t), s.until(ctx, ready, patience)); err != nil {
			return err
		}
		if s.last.UID != mirror || s.container() != id {
			return fmt.Errorf("the agent's restart did not leave the pod alone%s", s.explain(nil))
		}
	}
	return nil
}

// disturbStaticMeanwhile changes and removes files while there is no agent: the next one does what they say.
func disturbStaticMeanwhile(t *testing.T, w *world) error {
	return w.withManifests(t, func(*setup.AgentOptions) {}, func(ctx context.Context, folder string) error {
		changed, err := w.makeStatic(t, folder, "changed", "one")
		if err != nil {
			return err
		}
		removed, err := w.makeStatic(t, folder, "removed", "one")
		if err != nil {
			return err
		}
		if err := errors.Join(changed.runs(ctx, "one"), removed.runs(ctx, "one")); err != nil {
			return err
		}
		old, gone := changed.uid(), removed.uid()
		err = errors.Join(w.stopAgent(ctx), changed.write("changed", "two"), os.Remove(removed.file), w.runAgent(ctx),
			changed.runs(ctx, "two"), removed.until(ctx, "gone", patience), w.nothingLeftOf(ctx, old), w.nothingLeftOf(ctx, gone))
		if err != nil {
			return err
		}
		last := changed.uid()
		return errors.Join(os.Remove(changed.file), changed.until(ctx, "gone", patience), w.nothingLeftOf(ctx, last))
	})
}
