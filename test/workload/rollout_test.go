// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

func onFailure(deadline int32) func(*pappsv1.Deployment) {
	return func(d *pappsv1.Deployment) {
		d.Spec.OnFailure, d.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, &deadline
	}
}

func image(name string) func(*pappsv1.Deployment) {
	return func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = name }
}

// stalled waits until the Deployment says in its present generation that it failed, with that reason and message.
func (w *world) stalled(d *pappsv1.Deployment, reason string, parts ...string) {
	w.Helper()
	w.eventually("Deployment "+d.Name+" is stalled", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		c, ok := condition.Deployment.Get(d.Status.Conditions, pcorev1.ConditionStalled)
		if !ok || c.Reason != reason || d.Status.ObservedGeneration != d.Generation {
			return fmt.Errorf("generation %d, status %+v", d.Generation, d.Status)
		}
		for _, part := range parts {
			if !strings.Contains(c.Message, part) {
				return fmt.Errorf("message %q lacks %q", c.Message, part)
			}
		}
		return nil
	})
}

// settles waits until exactly n pods of the app are there, all of them ready and as wanted.
func (w *world) settles(app string, n int, as func(*pcorev1.Pod) error) {
	w.Helper()
	w.eventually(fmt.Sprintf("%d pods of %s are as they should be", n, app), func() error {
		pods := w.pods(app)
		for i := range pods {
			if err := as(&pods[i]); err != nil {
				return fmt.Errorf("pod %s: %w", pods[i].Name, err)
			}
			if c, _ := condition.Pod.Get(pods[i].Status.Conditions, string(corev1.PodReady)); c.Status != corev1.ConditionTrue {
				return fmt.Errorf("pod %s isn't ready", pods[i].Name)
			}
		}
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		return nil
	})
}

func runs(image string) func(*pcorev1.Pod) error {
	return func(p *pcorev1.Pod) error {
		if got := p.Spec.Containers[0].Image; got != image {
			return fmt.Errorf("runs %s", got)
		}
		return nil
	}
}

// TestRollbackStory: a rollout that fails goes back; the spec stays, scaling doesn't try again, a change does.
func TestRollbackStory(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	w.agent.breakImage("image:bad")
	d := w.deployment("web", 3, onFailure(2))
	w.ready(d)
	good := d.Status.LastCompleteRevision
	if good == "" {
		t.Fatal("no complete revision is noted")
	}

	w.change(d, image("image:bad"))
	w.stalled(d, "ImagePullBackOff", "Rolled back to "+good, "made no progress for 2s", "the image isn't there.", "A change of the spec tries again.")
	w.settles("web", 3, runs("image:1"))
	if r := d.Status.Rollback; r == nil || r.Generation != d.Generation || r.Revision != good || r.Reason != "ImagePullBackOff" {
		t.Errorf("rollback %+v", d.Status.Rollback)
	}
	if got := d.Spec.Template.Spec.Containers[0].Image; got != "image:bad" {
		t.Errorf("the spec says %s", got)
	}

	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(5)) })
	w.stalled(d, "ImagePullBackOff")
	w.settles("web", 5, runs("image:1"))
	w.restart()
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(2)) })
	w.stalled(d, "ImagePullBackOff")
	w.settles("web", 2, runs("image:1"))

	w.change(d, image("image:2"))
	w.ready(d)
	w.settles("web", 2, runs("image:2"))
	if d.Status.Rollback != nil || d.Status.Progress != nil || d.Status.LastCompleteRevision == good {
		t.Errorf("status %+v", d.Status.RolloutStatus)
	}
}

// TestRollbackOfRecreate: with Recreate there is a moment without pods, and the old ones come back.
func TestRollbackOfRecreate(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	w.agent.breakImage("image:bad")
	d := w.deployment("web", 2, onFailure(2), func(d *pappsv1.Deployment) { d.Spec.Strategy.Type = "Recreate" })
	w.ready(d)
	w.change(d, image("image:bad"))
	w.stalled(d, "ImagePullBackOff")
	w.settles("web", 2, runs("image:1"))
}

// TestNothingToRollBackTo: the first revision of all fails like any other Deployment's, and a good one follows.
func TestNothingToRollBackTo(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	w.agent.breakImage("image:bad")
	d := w.deployment("web", 2, onFailure(2), image("image:bad"))
	w.stalled(d, revision.ReasonTimedOut, "ImagePullBackOff: the image isn't there.")
	if d.Status.Rollback != nil || d.Status.LastCompleteRevision != "" {
		t.Errorf("status %+v", d.Status.RolloutStatus)
	}
	w.change(d, image("image:2"))
	w.ready(d)
}

// onConfig makes the pods refer to the ConfigMap and the Secret of that name, whose contents are part of the revision.
func onConfig(name string) func(*pappsv1.Deployment) {
	return func(d *pappsv1.Deployment) {
		d.Spec.RolloutOn = pappsv1.RolloutOnConfig
		referTo(&d.Spec.Template, name)
	}
}

func referTo(t *pcorev1.PodTemplateSpec, name string) {
	t.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
	t.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "secret", MountPath: "/secret", SubPath: "key"}}
	t.Spec.Volumes = []corev1.Volume{{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Items: []corev1.KeyToPath{{Key: "key", Path: "key"}}}}}}
}

// configMap writes Pinnace's ConfigMap of that name.
func (w *world) configMap(name, mode string) {
	w.Helper()
	cm := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Data: map[string]string{"mode": mode}}
	err := w.Create(w.ctx, cm)
	if apierrors.IsAlreadyExists(err) {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(cm), cm))
		cm.Data["mode"] = mode
		err = w.Update(w.ctx, cm)
	}
	w.must(err)
}

// secret writes the native Secret of that name.
func (w *world) secret(name, value string) {
	w.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Data: map[string][]byte{"key": []byte(value)}}
	err := w.Create(w.ctx, s)
	if apierrors.IsAlreadyExists(err) {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(s), s))
		s.Data["key"] = []byte(value)
		err = w.Update(w.ctx, s)
	}
	w.must(err)
}

// reads says what a pod finds in its config.
func (w *world) reads(mode, key string) func(*pcorev1.Pod) error {
	return func(p *pcorev1.Pod) error {
		gotMode, gotKey, err := podConfig(w.ctx, w.Client, p)
		if err != nil {
			return err
		}
		if gotMode != mode || gotKey != key {
			return fmt.Errorf("reads %q and %q", gotMode, gotKey)
		}
		return nil
	}
}

func podConfig(ctx context.Context, c client.Client, p *pcorev1.Pod) (mode, key string, err error) {
	var cm pcorev1.ConfigMap
	var s pcorev1.Secret
	if err := c.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: p.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name}, &cm); err != nil {
		return "", "", err
	}
	if err := c.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: p.Spec.Volumes[0].Secret.SecretName}, &s); err != nil {
		return "", "", err
	}
	if cm.Immutable == nil || !*cm.Immutable || s.Immutable == nil || !*s.Immutable {
		return "", "", fmt.Errorf("it reads config that may change: %s, %s", cm.Name, s.Name)
	}
	return cm.Data["mode"], string(s.Data["key"]), nil
}

// snapshots are the names of the snapshots in the namespace.
func (w *world) snapshots() []string {
	w.Helper()
	var out []string
	var maps pcorev1.ConfigMapList
	w.must(w.List(w.ctx, &maps, client.InNamespace(w.namespace), client.HasLabels{kube.SnapshotLabel}))
	for i := range maps.Items {
		out = append(out, maps.Items[i].Name)
	}
	var secrets pcorev1.SecretList
	w.must(w.List(w.ctx, &secrets, client.InNamespace(w.namespace), client.HasLabels{kube.SnapshotLabel}))
	for i := range secrets.Items {
		out = append(out, secrets.Items[i].Name)
	}
	return out
}

// TestConfigStory: config that isn't there is waited for; a change of it rolls out; a rollback brings the old content back; what nobody
// needs is cleared away, and all goes with the Deployment.
func TestConfigStory(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	w.configMap("app", "one")
	d := w.deployment("web", 2, onConfig("app"), func(d *pappsv1.Deployment) { d.Spec.RevisionHistoryLimit = new(int32(1)) })
	w.eventually("the Deployment says what is missing", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		c, _ := condition.Deployment.Get(d.Status.Conditions, pcorev1.ConditionReady)
		if c.Reason != "ConfigMissing" || c.Message != "Secret app isn't there: the rollout waits for it." {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.secret("app", "1")
	w.ready(d)
	w.settles("web", 2, w.reads("one", "1"))

	w.configMap("app", "two")
	w.settles("web", 2, w.reads("two", "1"))
	w.secret("app", "2")
	w.settles("web", 2, w.reads("two", "2"))
	w.ready(d)
	if d.Generation != 1 {
		t.Errorf("the spec was changed: generation %d", d.Generation)
	}
	if n := w.count(&pappsv1.ReplicaSetList{}); n < 2 {
		t.Errorf("%d ReplicaSets", n)
	}

	// A change of metadata alone is none of the pods' business.
	cm := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "app"}}
	w.must(w.Get(w.ctx, client.ObjectKeyFromObject(cm), cm))
	cm.Labels = map[string]string{"touched": "yes"}
	w.must(w.Update(w.ctx, cm))

	// Back on request: to the content of before, though config says something else now.
	w.change(d, func(d *pappsv1.Deployment) {
		d.Annotations[revision.RollbackAnnotation] = "0"
	})
	w.settles("web", 2, w.reads("two", "1"))
	w.ready(d)
	w.eventually("only the snapshots of two revisions are left", func() error {
		if got := w.snapshots(); len(got) != 3 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})

	// Config that goes leaves the pods alone.
	w.change(d, onConfig("app"))
	w.settles("web", 2, w.reads("two", "2"))
	w.must(w.Delete(w.ctx, cm))
	w.eventually("the Deployment says what is missing", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		if c, _ := condition.Deployment.Get(d.Status.Conditions, pcorev1.ConditionReady); c.Reason != "ConfigMissing" {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(3)) })
	w.settles("web", 3, w.reads("two", "2"))
	w.must(w.Delete(w.ctx, d))
	w.eventually("the snapshots go with the Deployment", func() error {
		if got := w.snapshots(); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

func (w *world) count(list client.ObjectList) int {
	w.Helper()
	w.must(w.List(w.ctx, list, client.InNamespace(w.namespace)))
	switch l := list.(type) {
	case *pappsv1.ReplicaSetList:
		return len(l.Items)
	case *pcorev1.PodList:
		return len(l.Items)
	}
	return 0
}

// failOn makes pods fail that read that mode.
func (w *world) failOn(mode string) {
	w.agent.mu.Lock()
	defer w.agent.mu.Unlock()
	w.agent.fails = func(ctx context.Context, c client.Client, pod *pcorev1.Pod) bool {
		got, _, err := podConfig(ctx, w.Client, pod)
		return err == nil && got == mode
	}
}

// TestBadConfigGoesBack: both extensions together. Config that breaks the pods is rolled back to the content of before, and config that
// works is rolled out again, with no change of the spec.
func TestBadConfigGoesBack(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	w.failOn("bad")
	w.configMap("app", "one")
	w.secret("app", "1")
	d := w.deployment("web", 3, onConfig("app"), onFailure(3))
	w.ready(d)
	w.configMap("app", "bad")
	w.stalled(d, "ImagePullBackOff", "Rolled back to")
	w.settles("web", 3, w.reads("one", "1"))
	w.configMap("app", "two")
	w.settles("web", 3, w.reads("two", "1"))
	w.ready(d)
	if d.Generation != 1 || d.Status.Rollback != nil {
		t.Errorf("generation %d, rollback %+v", d.Generation, d.Status.Rollback)
	}
}

// TestRolloutFaults: a rollback and a change of config get through though every write fails, times out after it was carried out, and
// meets a conflict.
func TestRolloutFaults(t *testing.T) {
	f := newFaults()
	w := newWorld(t, options{nodes: 2, wrap: f.wrap})
	w.failOn("bad")
	w.configMap("app", "one")
	w.secret("app", "1")
	d := w.deployment("web", 2, onConfig("app"), onFailure(4))
	w.ready(d)
	w.configMap("app", "bad")
	w.stalled(d, "ImagePullBackOff", "Rolled back to")
	w.settles("web", 2, w.reads("one", "1"))
	w.configMap("app", "two")
	w.settles("web", 2, w.reads("two", "1"))
	w.ready(d)
	for _, verb := range []string{"create *v1.ConfigMap", "create *v1.Secret", "create *v1.ReplicaSet", "patch *v1.ReplicaSet", "update status *v1.Deployment"} {
		if f.struck[verb] == 0 {
			t.Errorf("no fault struck %q; struck were %v", verb, f.struck)
		}
	}
	if n := w.count(&pappsv1.ReplicaSetList{}); n != 3 {
		t.Errorf("%d ReplicaSets for three contents", n)
	}
}

// TestSnapshotsAreKept: a snapshot that somebody deletes is made again; one that a workload left behind is taken over by the next of its name; and
// somebody else's object in the way is told of.
func TestSnapshotsAreKept(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	w.configMap("app", "one")
	w.secret("app", "1")
	d := w.deployment("web", 1, onConfig("app"))
	w.ready(d)
	w.settles("web", 1, w.reads("one", "1"))
	pod := w.pods("web")[0]
	name := pod.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name
	w.must(w.Delete(w.ctx, &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}))
	w.settles("web", 1, w.reads("one", "1"))

	orphan := metav1.DeletePropagationOrphan
	w.must(w.Delete(w.ctx, d, &client.DeleteOptions{PropagationPolicy: &orphan}))
	w.eventually("the Deployment is gone, its dependents are orphans", func() error {
		var cm pcorev1.ConfigMap
		w.must(w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, &cm))
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(d), d); !apierrors.IsNotFound(err) || len(cm.OwnerReferences) > 0 {
			return fmt.Errorf("owners %v: %w", cm.OwnerReferences, orNotYet(err))
		}
		return nil
	})
	again := w.deployment("web", 1, onConfig("app"))
	w.ready(again)
	if now := w.pods("web")[0]; now.UID != pod.UID {
		t.Error("the pod was replaced, though nothing changed")
	}
	var cm pcorev1.ConfigMap
	w.must(w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, &cm))
	if !metav1.IsControlledBy(&cm, again) || cm.Labels[kube.SnapshotLabel] != string(again.UID) {
		t.Errorf("owners %v, labels %v", cm.OwnerReferences, cm.Labels)
	}

	// The name of the next snapshot depends on what is known beforehand.
	digest, err := revision.Digest(map[string]string{"mode": "two"}, nil)
	w.must(err)
	app := revision.ConfigRef{Kind: revision.KindConfigMap, Name: "app"}
	secret, err := revision.Digest(nil, map[string][]byte{"key": []byte("1")})
	w.must(err)
	next := revision.Pin("Deployment/web", &again.Spec.Template, map[revision.ConfigRef]revision.Content{app: {Digest: digest}, {Kind: revision.KindSecret, Name: "app"}: {Digest: secret}})
	foreign := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: next.Snapshots[0].Name}}
	w.must(w.Create(w.ctx, foreign))
	w.configMap("app", "two")
	w.eventually("the Deployment says what is in the way", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(again), again))
		c, _ := condition.Deployment.Get(again.Status.Conditions, pcorev1.ConditionReady)
		if want := fmt.Sprintf("making ConfigMap %s, a snapshot of ConfigMap app: somebody else's object has this name", foreign.Name); c.Message != want {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.settles("web", 1, w.reads("one", "1"))
	w.must(w.Delete(w.ctx, foreign))
	w.settles("web", 1, w.reads("two", "1"))
	w.ready(again)
}

// TestConfigUnused: nobody watches or reads config while no workload asks for it.
func TestConfigUnused(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	w.configMap("app", "one")
	w.secret("app", "1")
	d := w.deployment("web", 1, onConfig("app"), func(d *pappsv1.Deployment) { d.Spec.RolloutOn = "" })
	w.ready(d)
	w.configMap("app", "two")
	<-time.After(1500 * time.Millisecond) // nothing happens, for longer than a change of config would wait
	if got := w.snapshots(); len(got) > 0 || w.count(&pappsv1.ReplicaSetList{}) != 1 {
		t.Errorf("snapshots %v", got)
	}
}

// TestQuotaRefusalIsTold: the Deployment itself says that the API server refuses its pods, and why; with old pods serving, too.
func TestQuotaRefusalIsTold(t *testing.T) {
	var refuse atomic.Bool
	w := newWorld(t, options{nodes: 1, wrap: func(c client.Client) client.Client {
		return interceptor.NewClient(watchless{c}, interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
				if _, ok := obj.(*pcorev1.Pod); ok && refuse.Load() {
					return apierrors.NewForbidden(pcorev1.GroupVersion.WithResource("pods").GroupResource(), obj.GetName(), errors.New("exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2"))
				}
				return c.Create(ctx, obj, opts...)
			},
		})
	}})
	d := w.deployment("web", 2)
	w.ready(d)
	refuse.Store(true)
	for what, change := range map[string]func(*pappsv1.Deployment){
		"a rollout": image("image:2"),
		"scaling":   func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(3)) },
	} {
		w.change(d, change)
		w.eventually(what+" is refused, and the Deployment says so", func() error {
			w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
			c, _ := condition.Deployment.Get(d.Status.Conditions, pcorev1.ConditionReady)
			if d.Status.ObservedGeneration != d.Generation || c.Status != corev1.ConditionFalse || c.Reason != "FailedCreate" || !strings.Contains(c.Message, "exceeded quota: compute, requested: pods=1") {
				return fmt.Errorf("condition %+v", c)
			}
			return nil
		})
	}
	refuse.Store(false)
	w.change(d, image("image:3"))
	w.ready(d)
}
