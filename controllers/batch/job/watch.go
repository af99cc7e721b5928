// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// matters says whether a change of a pod can change what its Job does or reports.
func matters(before, after *pcorev1.Pod) bool {
	return workload.Matters(before, after) || jobstate.Restarts(before) != jobstate.Restarts(after) ||
		!slices.Equal(before.Finalizers, after.Finalizers) && (after.DeletionTimestamp != nil || jobstate.IsTracked(before) != jobstate.IsTracked(after))
}

// nodeMatters says whether a change of a node can change whether pods belong on it.
func nodeMatters(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*pcorev1.Node)
	after, ok2 := e.ObjectNew.(*pcorev1.Node)
	return !ok || !ok2 || !maps.Equal(before.Labels, after.Labels) || before.Spec.Unschedulable != after.Spec.Unschedulable ||
		!equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) || (before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil)
}

// perNode returns the unfinished Jobs that want a pod on every node.
func (r *Reconciler) perNode(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.jobs(ctx, nil, func(job *pbatchv1.Job) bool { return perNode(job) && !isFinished(&job.Status) })
}

// adopters returns the Jobs whose selector matches an orphaned pod.
func (r *Reconciler) adopters(ctx context.Context, pod *pcorev1.Pod) []reconcile.Request {
	return r.jobs(ctx, []client.ListOption{client.InNamespace(pod.Namespace)}, func(job *pbatchv1.Job) bool {
		selector, err := makeSelector(job)
		return err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) && !isFinished(&job.Status)
	})
}

// jobs returns the Jobs that are wanted.
func (r *Reconciler) jobs(ctx context.Context, where []client.ListOption, want func(*pbatchv1.Job) bool) []reconcile.Request {
	var list pbatchv1.JobList
	if err := r.client.List(ctx, &list, append(where, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list Jobs that a change might concern")
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		if want(&list.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// ownerOf returns the reference of a pod to its Job, nil if its controller is no Job of ours.
func ownerOf(pod *pcorev1.Pod) *metav1.OwnerReference {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != kind.Kind || ref.APIVersion != kind.GroupVersion().String() {
		return nil
	}
	return ref
}
