// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

// TestJobFaults: with every write failing, timing out after it was carried out, and meeting a conflict, each pod is made once and
// counted once, whether the Job succeeds, fails, shrinks or is deleted.
func TestJobFaults(t *testing.T) {
	f := newFaults()
	w := newWorld(t, options{nodes: 2, wrap: f.wrap})
	census := w.census()
	good := w.job("good", func(j *pbatchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = new(int32(6)), new(int32(3)) })
	bad := w.job("bad", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism, j.Spec.BackoffLimit = new(int32(3)), new(int32(3)), new(int32(0))
		j.Spec.Template.Annotations[fake.AnnotationExitCode] = "1"
	})
	parts := w.job("parts", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(4)), new(int32(4))
		j.Spec.CompletionMode, j.Spec.BackoffLimitPerIndex = new(batchv1.IndexedCompletion), new(int32(0))
		j.Spec.Template.Annotations[fake.AnnotationExitCode] = "1"
		j.Spec.Template.Annotations[annotationFailing] = "2"
	})
	w.awaits(good, "completes", is(batchv1.JobComplete))
	w.awaits(bad, "fails", is(batchv1.JobFailed))
	w.awaits(parts, "fails", is(batchv1.JobFailed))
	if good.Status.Succeeded != 6 || good.Status.Failed != 0 {
		t.Errorf("good: %+v", good.Status)
	}
	if bad.Status.Succeeded != 0 || bad.Status.Failed < 1 || bad.Status.Failed > 3 {
		t.Errorf("bad: %+v", bad.Status)
	}
	if parts.Status.CompletedIndexes != "0,1,3" || *parts.Status.FailedIndexes != "2" || parts.Status.Failed != 1 {
		t.Errorf("parts: %+v", parts.Status)
	}
	if n := census.count(); n != 6+4+int(bad.Status.Failed) {
		t.Errorf("%d pods were made for 6 completions, 4 indexes and %d failures", n, bad.Status.Failed)
	}
	for _, name := range []string{"good", "bad", "parts"} {
		for _, p := range w.everyPod(name) {
			if slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) {
				t.Errorf("pod %s keeps the finalizer", p.Name)
			}
		}
	}
	shrinking := w.job("shrinking", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(9)), new(int32(4))
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
	})
	w.awaits(shrinking, "runs", func(j *pbatchv1.Job) bool { return j.Status.Ready != nil && *j.Status.Ready == 4 })
	w.changeJob(shrinking, func(j *pbatchv1.Job) { j.Spec.Parallelism = new(int32(1)) })
	w.awaits(shrinking, "shrinks", func(j *pbatchv1.Job) bool {
		return j.Status.Active == 1 && j.Status.Failed == 0 && *j.Status.Terminating == 0
	})
	w.must(w.Delete(w.ctx, shrinking, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	w.eventually("the pods of the deleted Job go", func() error {
		if n := len(w.everyPod("shrinking")); n > 0 {
			return errNotYet
		}
		return nil
	})
	for _, verb := range []string{"create *v1.Pod", "patch *v1.Pod", "delete *v1.Pod", "update status *v1.Job"} {
		if f.struck[verb] == 0 {
			t.Errorf("no fault struck %q; struck were %v", verb, f.struck)
		}
	}
}

// TestJobNewLeader: another manager takes over again and again while a Job runs, knowing nothing of what the one before wrote last.
func TestJobNewLeader(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	census := w.census()
	j := w.job("handed-over", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(40)), new(int32(5))
		j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
	})
	for range 4 {
		w.restart()
	}
	w.awaits(j, "completes", is(batchv1.JobComplete))
	if n := census.count(); n != 40 || j.Status.Succeeded != 40 || j.Status.CompletedIndexes != "0-39" {
		t.Errorf("%d pods were made for 40 indexes; status %+v", n, j.Status)
	}
}

// TestJobSaysWhy: what keeps the pods from running stands on the Job.
func TestJobSaysWhy(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	large := w.job("large", func(j *pbatchv1.Job) {
		j.Spec.Template.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("100")
	})
	w.agent.breakImage("image:broken")
	broken := w.job("broken", func(j *pbatchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "image:broken" })
	w.awaits(large, "tells why", func(j *pbatchv1.Job) bool {
		return strings.Contains(verdict(j), "Unschedulable: Pod large-") && strings.Contains(verdict(j), "Insufficient cpu")
	})
	w.awaits(broken, "tells why", func(j *pbatchv1.Job) bool {
		return strings.HasPrefix(verdict(j), "ImagePullBackOff: Container main of pod broken-")
	})
	nowhere := w.job("nowhere", func(j *pbatchv1.Job) {
		j.Spec.Mode = pbatchv1.JobOncePerNode
		j.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "floppy"}
	})
	w.awaits(nowhere, "tells why", func(j *pbatchv1.Job) bool { return strings.HasPrefix(verdict(j), "NoMatchingNodes: No node matches") })
}

// refusing is an API server that makes no pods as long as refuse is set.
type refusing struct{ refuse atomic.Bool }

func (q *refusing) wrap(c client.Client) client.Client {
	return interceptor.NewClient(watchless{c}, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			if _, ok := obj.(*pcorev1.Pod); ok && q.refuse.Load() {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, obj.GetName(), errors.New("exceeded quota: small"))
			}
			return c.Create(ctx, obj, opts...)
		},
	})
}

// TestJobRefusedPods: pods that the API server refuses to make are named on the Job, and made once it allows them.
func TestJobRefusedPods(t *testing.T) {
	q := &refusing{}
	w := newWorld(t, options{nodes: 1, wrap: q.wrap})
	q.refuse.Store(true)
	j := w.job("quota", func(j *pbatchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = new(int32(3)), new(int32(3)) })
	w.awaits(j, "says that its pods are refused", func(j *pbatchv1.Job) bool {
		return strings.HasPrefix(verdict(j), "FailedCreate: creating a pod:") && strings.Contains(verdict(j), "exceeded quota") && j.Status.Active == 0
	})
	q.refuse.Store(false)
	w.awaits(j, "completes", is(batchv1.JobComplete))
}
