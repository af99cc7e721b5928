// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ttl

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=jobs,verbs=get;list;watch;delete

// Reconciler deletes finished Jobs.
type Reconciler struct {
	client client.Client
	live   client.Reader
	now    func() time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache; live reads past it.
func NewReconciler(c client.Client, live client.Reader) *Reconciler {
	return &Reconciler{client: c, live: live, now: time.Now}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	limited := predicate.NewPredicateFuncs(func(obj client.Object) bool {
		job, ok := obj.(*pbatchv1.Job)
		if !ok {
			return false
		}
		_, limited := remaining(job, time.Time{})
		return limited
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("job-ttl").
		For(&pbatchv1.Job{}, builder.WithPredicates(limited)).
		WithOptions(controller.Options{RateLimiter: kube.Backoff()}).
		Complete(r)
}

// Reconcile deletes one Job if its time is up.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if left, limited, _, err := r.look(ctx, r.client, req.NamespacedName); err != nil || !limited || left > 0 {
		return ctrl.Result{RequeueAfter: left}, err
	}
	// The cache may be behind somebody who has just given the Job more time, and deleting can't be undone.
	left, limited, job, err := r.look(ctx, r.live, req.NamespacedName)
	if err != nil || !limited || left > 0 {
		return ctrl.Result{RequeueAfter: left}, err
	}
	err = r.client.Delete(ctx, job, client.PropagationPolicy(metav1.DeletePropagationForeground),
		client.Preconditions{UID: &job.UID, ResourceVersion: &job.ResourceVersion})
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("deleting the finished job %s: %w", req.NamespacedName, err)
	}
	ctrl.LoggerFrom(ctx).Info("Deleted a finished job whose time is up", "job", req.NamespacedName)
	return ctrl.Result{}, nil
}

func (r *Reconciler) look(ctx context.Context, from client.Reader, key types.NamespacedName) (time.Duration, bool, *pbatchv1.Job, error) {
	var job pbatchv1.Job
	if err := from.Get(ctx, key, &job); err != nil {
		if apierrors.IsNotFound(err) {
			return 0, false, nil, nil
		}
		return 0, false, nil, fmt.Errorf("reading job %s: %w", key, err)
	}
	left, limited := remaining(&job, r.now())
	return left, limited, &job, nil
}
