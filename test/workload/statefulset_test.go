// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// statefulSet makes a StatefulSet of that many pods with one container.
func (w *world) statefulSet(name string, replicas int32, change ...func(*pappsv1.StatefulSet)) *pappsv1.StatefulSet {
	w.Helper()
	labels := map[string]string{"app": name}
	set := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	set.Spec.Replicas = &replicas
	set.Spec.ServiceName = name
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	set.Spec.Template = template(labels, "image:1")
	for _, c := range change {
		c(set)
	}
	w.must(w.Create(w.ctx, set))
	return set
}

// changeSet changes a StatefulSet's spec, whatever else writes to it.
func (w *world) changeSet(set *pappsv1.StatefulSet, change func(*pappsv1.StatefulSet)) {
	w.Helper()
	w.eventually("the StatefulSet takes the change", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(set), set))
		change(set)
		err := w.Update(w.ctx, set)
		if err != nil && !apierrors.IsConflict(err) {
			w.Fatal(err)
		}
		return err
	})
}

func stsImage(image string) func(*pappsv1.StatefulSet) {
	return func(set *pappsv1.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = image }
}

// setReady waits until the StatefulSet says that it is ready in its present generation.
func (w *world) setReady(set *pappsv1.StatefulSet) {
	w.Helper()
	w.eventually("StatefulSet "+set.Name+" becomes ready", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(set), set))
		c, _ := condition.StatefulSet.Get(set.Status.Conditions, pcorev1.ConditionReady)
		if set.Status.ObservedGeneration == set.Generation && c.Status == corev1.ConditionTrue {
			return nil
		}
		return fmt.Errorf("generation %d, status %+v", set.Generation, set.Status)
	})
}

// setSays waits until a condition of the StatefulSet is true with that reason, and returns it.
func (w *world) setSays(set *pappsv1.StatefulSet, kind, reason string) condition.Condition {
	w.Helper()
	var c condition.Condition
	w.eventually("StatefulSet "+set.Name+" is "+kind+" with reason "+reason, func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(set), set))
		if c, _ = condition.StatefulSet.Get(set.Status.Conditions, kind); c.Status == corev1.ConditionTrue && c.Reason == reason {
			return nil
		}
		return fmt.Errorf("conditions %+v", set.Status.Conditions)
	})
	return c
}

// images are the images of an app's pods by pod name.
func (w *world) imagesByName(app string) map[string]string {
	w.Helper()
	out := map[string]string{}
	for _, p := range w.pods(app) {
		out[p.Name] = p.Spec.Containers[0].Image
	}
	return out
}

func (w *world) waitImages(app string, want ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("the pods run %v", want), func() error {
		got := w.imagesByName(app)
		for i, image := range want {
			if got[fmt.Sprintf("%s-%d", app, i)] != image {
				return fmt.Errorf("images %v", got)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("images %v", got)
		}
		return nil
	})
}

func claimTemplate(name, size, class string) corev1.PersistentVolumeClaim {
	c := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	if class != "" {
		c.Spec.StorageClassName = &class
	}
	return c
}

// bind gives every claim of the namespace what it asks for, as a provisioner would.
func (w *world) bind() {
	w.Helper()
	var list pcorev1.PersistentVolumeClaimList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
	for i := range list.Items {
		claim := &list.Items[i]
		want := claim.Spec.Resources.Requests[corev1.ResourceStorage]
		have := claim.Status.Capacity[corev1.ResourceStorage]
		if claim.DeletionTimestamp != nil || claim.Status.Phase == corev1.ClaimBound && have.Cmp(want) == 0 {
			continue
		}
		claim.Status.Phase = corev1.ClaimBound
		claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: want}
		if err := w.Status().Update(w.ctx, claim); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			w.Fatal(err)
		}
	}
}

func (w *world) claims() map[string]pcorev1.PersistentVolumeClaim {
	w.Helper()
	var list pcorev1.PersistentVolumeClaimList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
	out := map[string]pcorev1.PersistentVolumeClaim{}
	for _, c := range list.Items {
		out[c.Name] = c
	}
	return out
}

func (w *world) setRevisions() []pappsv1.ControllerRevision {
	w.Helper()
	var list pappsv1.ControllerRevisionList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
	slices.SortFunc(list.Items, func(a, b pappsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
	return list.Items
}

// TestStatefulSetStory follows one StatefulSet through its life.
func TestStatefulSetStory(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	set := w.statefulSet("db", 3)
	w.setReady(set)
	first := set.Status.UpdateRevision
	if set.Status.CurrentRevision != first || set.Status.Columns["ready"] != "3/3" || set.Status.Replicas != 3 || set.Status.UpdatedReplicas != 3 ||
		set.Status.CurrentReplicas != 3 || set.Status.AvailableReplicas != 3 || set.Status.CollisionCount == nil {
		t.Errorf("status %+v", set.Status)
	}
	pods := w.pods("db")
	slices.SortFunc(pods, func(a, b pcorev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	if len(pods) != 3 {
		t.Fatalf("%d pods", len(pods))
	}
	for i, p := range pods {
		name := fmt.Sprintf("db-%d", i)
		if p.Name != name || p.Spec.Hostname != name || p.Spec.Subdomain != "db" || p.Labels[appsv1.StatefulSetPodNameLabel] != name ||
			p.Labels[appsv1.PodIndexLabel] != fmt.Sprint(i) || p.Labels[revision.PodRevisionLabel] != first || p.GenerateName != "db-" {
			t.Errorf("pod %s: labels %v, hostname %q, subdomain %q", p.Name, p.Labels, p.Spec.Hostname, p.Spec.Subdomain)
		}
	}
	for i := 1; i < len(pods); i++ {
		if pods[i].CreationTimestamp.Before(&pods[i-1].CreationTimestamp) {
			t.Errorf("%s was made before %s", pods[i].Name, pods[i-1].Name)
		}
	}

	w.changeSet(set, stsImage("image:2"))
	w.setReady(set)
	w.waitImages("db", "image:2", "image:2", "image:2")
	second := set.Status.UpdateRevision
	if second == first || set.Status.CurrentRevision != second {
		t.Errorf("revisions %s and %s", set.Status.CurrentRevision, second)
	}
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.Replicas = new(int32(5)) })
	w.setReady(set)
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.Replicas = new(int32(2)) })
	w.setReady(set)
	w.waitImages("db", "image:2", "image:2")

	// A rollback takes the equal revision up again.
	w.changeSet(set, stsImage("image:1"))
	w.setReady(set)
	w.waitImages("db", "image:1", "image:1")
	if set.Status.UpdateRevision != first {
		t.Errorf("went back to %s, not to %s", set.Status.UpdateRevision, first)
	}
	if revs := w.setRevisions(); len(revs) != 2 || revs[1].Name != first || revs[1].Revision != 3 {
		t.Errorf("history %+v", revs)
	}
	rev := w.setRevisions()[0]
	if rev.Labels["app"] != "db" || rev.Labels[revision.HistoryHashLabel] == "" || !strings.Contains(string(rev.Data.Raw), `"$patch":"replace"`) {
		t.Errorf("revision %+v", rev)
	}

	// A pod that ended comes back under its name.
	w.eventually("db-0 fails", func() error {
		var pod pcorev1.Pod
		w.must(w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: "db-0"}, &pod))
		pod.Status.Phase = corev1.PodFailed
		return w.Status().Update(w.ctx, &pod)
	})
	w.eventually("db-0 is replaced", func() error {
		var pod pcorev1.Pod
		if err := w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: "db-0"}, &pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return errNotYet
		}
		return nil
	})
	w.setReady(set)

	// The history keeps no more than its limit.
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.RevisionHistoryLimit = new(int32(1)) })
	for _, image := range []string{"image:3", "image:4"} {
		w.changeSet(set, stsImage(image))
		w.setReady(set)
	}
	w.eventually("one old revision stays", func() error {
		if n := len(w.setRevisions()); n != 2 {
			return fmt.Errorf("%d revisions", n)
		}
		return nil
	})
	w.must(w.Delete(w.ctx, set))
	w.eventually("everything goes with the StatefulSet", func() error {
		if n := len(w.setRevisions()) + len(w.pods("db")); n > 0 {
			return fmt.Errorf("%d objects are left", n)
		}
		return nil
	})
}

// TestStatefulSetPartition: a partition keeps the pods below it on the current revision, even when one of them is made anew.
func TestStatefulSetPartition(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	set := w.statefulSet("db", 3, func(set *pappsv1.StatefulSet) { set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} })
	w.setReady(set)
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		stsImage("image:2")(set)
		set.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(2))}
	})
	w.setReady(set)
	want := map[string]string{"db-5": "image:1", "db-6": "image:1", "db-7": "image:2"}
	check := func() error {
		if got := w.imagesByName("db"); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("images %v", got)
		}
		return nil
	}
	w.eventually("only the highest pod is updated", check)
	if set.Status.CurrentReplicas != 2 || set.Status.UpdatedReplicas != 1 || set.Status.CurrentRevision == set.Status.UpdateRevision {
		t.Errorf("status %+v", set.Status)
	}
	w.must(w.Delete(w.ctx, &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db-5", Namespace: w.namespace}}))
	w.eventually("db-5 comes back as it was", check)
	w.setReady(set)
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.UpdateStrategy.RollingUpdate.Partition = new(int32(0)) })
	w.setReady(set)
	want = map[string]string{"db-5": "image:2", "db-6": "image:2", "db-7": "image:2"}
	w.eventually("all are updated", check)
}

// TestStatefulSetParallelAndOnDelete: Parallel makes all at once and updates maxUnavailable at a time; OnDelete leaves the update to the user.
func TestStatefulSetParallelAndOnDelete(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	set := w.statefulSet("web", 6, func(set *pappsv1.StatefulSet) {
		set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		two := intstr.FromInt32(2)
		set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{
			Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: &two},
		}
	})
	w.setReady(set)
	w.changeSet(set, stsImage("image:2"))
	w.eventually("the update keeps four pods", func() error {
		ready, updated := 0, 0
		for _, p := range w.pods("web") {
			if c, _ := condition.Pod.Get(p.Status.Conditions, string(corev1.PodReady)); c.Status == corev1.ConditionTrue {
				ready++
				if p.Spec.Containers[0].Image == "image:2" {
					updated++
				}
			}
		}
		if ready < 4 {
			t.Fatalf("%d pods are ready: out of bounds", ready)
		}
		if updated < 6 {
			return fmt.Errorf("%d updated", updated)
		}
		return nil
	})
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		stsImage("image:3")(set)
		set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
	})
	w.setReady(set)
	w.waitImages("web", "image:2", "image:2", "image:2", "image:2", "image:2", "image:2")
	w.must(w.Delete(w.ctx, &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-2", Namespace: w.namespace}}))
	w.waitImages("web", "image:2", "image:2", "image:3", "image:2", "image:2", "image:2")
}

// TestStatefulSetGetsOutOfABadRevision: upstream's StatefulSet stays broken for ever after this; ours takes the good revision.
func TestStatefulSetGetsOutOfABadRevision(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	set := w.statefulSet("db", 2)
	w.setReady(set)
	w.agent.breakImage("image:bad")
	w.changeSet(set, stsImage("image:bad"))
	c := w.setSays(set, pcorev1.ConditionReconciling, "ImagePullBackOff")
	if !strings.Contains(c.Message, "db-1") {
		t.Errorf("message %q", c.Message)
	}
	w.changeSet(set, stsImage("image:1"))
	w.setReady(set)
	w.waitImages("db", "image:1", "image:1")

	// With onFailure nobody has to do anything.
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		set.Spec.OnFailure, set.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, new(int32(2))
		stsImage("image:bad")(set)
	})
	c = w.setSays(set, pcorev1.ConditionStalled, "ImagePullBackOff")
	w.waitImages("db", "image:1", "image:1")
	if set.Spec.Template.Spec.Containers[0].Image != "image:bad" || set.Status.Rollback == nil || !strings.Contains(c.Message, "db-1") {
		t.Errorf("spec %v, rollback %+v, message %q", set.Spec.Template.Spec.Containers[0].Image, set.Status.Rollback, c.Message)
	}
	w.changeSet(set, stsImage("image:2"))
	w.setReady(set)
	w.waitImages("db", "image:2", "image:2")
}

// TestStatefulSetClaims: claims are made before their pods, follow the retention policy, grow, and new ones are added by a rollout.
func TestStatefulSetClaims(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	class := &pstoragev1.StorageClass{ObjectMeta: metav1.ObjectMeta{GenerateName: "growing-"}, Provisioner: "test", AllowVolumeExpansion: new(true)}
	w.must(w.Create(w.ctx, class))
	w.Cleanup(func() { w.must(w.Delete(w.ctx, class)) })
	set := w.statefulSet("db", 2, func(set *pappsv1.StatefulSet) {
		data := claimTemplate("data", "1Gi", class.Name)
		data.Labels = map[string]string{"tier": "gold"}
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{data}
		set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	})
	w.setReady(set)
	claims := w.claims()
	for i, name := range []string{"data-db-0", "data-db-1"} {
		c, ok := claims[name]
		if !ok || c.Labels["app"] != "db" || c.Labels["tier"] != "gold" || len(c.OwnerReferences) > 0 {
			t.Errorf("claim %s: %+v", name, c.ObjectMeta)
		}
		var pod pcorev1.Pod
		w.must(w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: fmt.Sprintf("db-%d", i)}, &pod))
		if len(pod.Spec.Volumes) != 1 || pod.Spec.Volumes[0].Name != "data" || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != name {
			t.Errorf("volumes %+v", pod.Spec.Volumes)
		}
		if pod.CreationTimestamp.Before(&c.CreationTimestamp) {
			t.Errorf("pod %s is older than its claim", pod.Name)
		}
	}
	w.bind()
	w.eventually("the claims are told", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(set), set))
		if len(set.Status.Claims) != 1 || set.Status.Claims[0] != (pappsv1.ClaimTemplateStatus{Name: "data", Requested: "1Gi", Claims: 2, Grown: 2}) {
			return fmt.Errorf("claims %+v", set.Status.Claims)
		}
		return nil
	})

	// The templates grow.
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("2Gi")
	})
	w.setSays(set, pcorev1.ConditionReconciling, "ClaimsGrowing")
	w.eventually("the claims ask for more", func() error {
		for _, c := range w.claims() {
			if c.Spec.Resources.Requests.Storage().String() != "2Gi" {
				return fmt.Errorf("claim %s asks for %s", c.Name, c.Spec.Resources.Requests.Storage())
			}
		}
		return nil
	})
	w.bind()
	w.setReady(set)
	uid := w.pods("db")[0].UID

	// A new template comes with a rollout.
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = append(set.Spec.VolumeClaimTemplates, claimTemplate("logs", "1Gi", ""))
	})
	w.eventually("each pod has the new volume", func() error {
		w.bind()
		pods := w.pods("db")
		for _, p := range pods {
			if len(p.Spec.Volumes) != 2 || p.UID == uid {
				return fmt.Errorf("pod %s has %d volumes", p.Name, len(p.Spec.Volumes))
			}
		}
		if len(pods) != 2 || len(w.claims()) != 4 {
			return errNotYet
		}
		return nil
	})
	w.bind()
	w.setReady(set)

	// A size that can't be had is told.
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates[1].Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("3Gi")
	})
	c := w.setSays(set, pcorev1.ConditionStalled, "ClaimCannotGrow")
	if !strings.Contains(c.Message, "logs-db-0") || !strings.Contains(c.Message, "storage class") {
		t.Errorf("message %q", c.Message)
	}

	// Scaling away takes the claims along, and scaling up makes new ones.
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.Replicas = new(int32(1)) })
	w.eventually("the claims of db-1 go with it", func() error {
		claims := w.claims()
		if len(claims) != 2 || claims["data-db-0"].Name == "" || claims["logs-db-0"].Name == "" {
			return fmt.Errorf("%d claims", len(claims))
		}
		return nil
	})
	// The policy changes: the set takes its claims along.
	w.changeSet(set, func(set *pappsv1.StatefulSet) {
		set.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	})
	w.eventually("the claims belong to the set", func() error {
		for _, c := range w.claims() {
			if !metav1.IsControlledBy(&c, set) {
				return fmt.Errorf("claim %s has owners %v", c.Name, c.OwnerReferences)
			}
		}
		return nil
	})
	w.must(w.Delete(w.ctx, set))
	w.eventually("the claims go with the set", func() error {
		if n := len(w.claims()); n > 0 {
			return fmt.Errorf("%d claims", n)
		}
		return nil
	})
}
