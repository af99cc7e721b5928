// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// orphans takes the tracking finalizer from pods that nobody will count: their Job is gone or finished, or they were set free. Without
// it, deleting a Job that runs would leave its pods for ever. A request names a pod.
type orphans struct{ client client.Client }

func (o *orphans) setupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("job-orphans").
		For(&pcorev1.Pod{}, builder.WithPredicates(predicate.NewPredicateFuncs(mayBeOrphan))).
		// The end of a Job and that of its pods come over different watches, in any order.
		Watches(&pbatchv1.Job{}, handler.Funcs{DeleteFunc: o.podsOf}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Complete(o)
}

// mayBeOrphan picks pods that are being deleted or have no controller, and can't be gone because of the finalizer.
func mayBeOrphan(obj client.Object) bool {
	pod, ok := obj.(*pcorev1.Pod)
	return ok && jobstate.IsTracked(pod) && (pod.DeletionTimestamp != nil || metav1.GetControllerOfNoCopy(pod) == nil)
}

// podsOf wakes for every pod of a Job that is gone.
func (o *orphans) podsOf(ctx context.Context, e event.DeleteEvent, q kube.Queue) {
	var list pcorev1.PodList
	err := o.client.List(ctx, &list, client.InNamespace(e.Object.GetNamespace()),
		client.MatchingFields{kube.ByController: string(e.Object.GetUID())}, client.UnsafeDisableDeepCopy)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list the pods of a Job that is gone", "job", client.ObjectKeyFromObject(e.Object))
		return
	}
	for i := range list.Items {
		if jobstate.IsTracked(&list.Items[i]) {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
}

// Reconcile takes the finalizer from one pod, if nobody is there to count it.
func (o *orphans) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pod pcorev1.Pod
	if err := o.client.Get(ctx, req.NamespacedName, &pod, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !jobstate.IsTracked(&pod) {
		return ctrl.Result{}, nil
	}
	if counted, err := o.willBeCounted(ctx, &pod); counted || err != nil {
		return ctrl.Result{}, err
	}
	_, err := kube.Unfinalize(ctx, o.client, batchv1.JobTrackingFinalizer, []*pcorev1.Pod{&pod}, false)
	if errors.Is(err, kube.ErrMoved) {
		return ctrl.Result{RequeueAfter: 50 * time.Millisecond}, nil
	}
	return ctrl.Result{}, err
}

// willBeCounted says whether the pod has a Job that isn't finished, or a controller that is none of ours to judge.
func (o *orphans) willBeCounted(ctx context.Context, pod *pcorev1.Pod) (bool, error) {
	if metav1.GetControllerOfNoCopy(pod) == nil {
		return false, nil
	}
	ref := ownerOf(pod)
	if ref == nil {
		return true, nil
	}
	var job pbatchv1.Job
	err := o.client.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: ref.Name}, &job, client.UnsafeDisableDeepCopy)
	if client.IgnoreNotFound(err) != nil {
		return true, fmt.Errorf("reading job %s: %w", ref.Name, err)
	}
	if err != nil || job.UID != ref.UID {
		return false, nil
	}
	if by := job.Spec.ManagedBy; by != nil && *by != batchv1.JobControllerName {
		return true, nil
	}
	return !isFinished(&job.Status), nil
}
