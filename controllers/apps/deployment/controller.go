// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=deployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=deployments/status,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=deployments/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=replicasets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=configmaps;secrets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get;list;watch

var kind = pappsv1.GroupVersion.WithKind("Deployment")

const (
	// retryDelay is how long a look waits that met a conflict: the cache will have caught up.
	retryDelay = 20 * time.Millisecond
	// workers is how many Deployments are looked at in parallel.
	workers = 8
)

// Reconciler rolls Deployments out.
type Reconciler struct {
	client client.Client
	live   client.Reader
	own    *kube.Overlay[*pappsv1.ReplicaSet]
	// counts are the statuses of ReplicaSets that may not be written yet.
	counts *kube.Relay[pappsv1.ReplicaSetStatus]
	status *kube.StatusWriter[*pappsv1.Deployment]
	config *kube.Configs
	now    func() time.Time
	// since is when the first Deployment was looked at.
	since func() time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache; counts tells what
// the ReplicaSets' controller has counted.
func NewReconciler(c client.Client, live client.Reader, counts *kube.Relay[pappsv1.ReplicaSetStatus]) *Reconciler {
	return &Reconciler{
		client: c, live: live, now: time.Now, counts: counts,
		own:    kube.NewOverlay((*pappsv1.ReplicaSet).DeepCopy),
		status: kube.NewStatusWriter[*pappsv1.Deployment](c, kube.StatusWindow),
		config: kube.NewConfigs(c, live),
		since:  sync.OnceValue(time.Now),
	}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	asked := predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	owned := kube.Owned[*pappsv1.ReplicaSet]{Owner: kind, Adopters: r.adopters, Own: r.own}
	c, err := ctrl.NewControllerManagedBy(mgr).
		Named("deployment").
		For(&pappsv1.Deployment{}, builder.WithPredicates(asked)).
		Watches(&pappsv1.ReplicaSet{}, owned).
		Watches(&pappsv1.ReplicaSet{}, kube.Gone(r.counts.Forget)).
		WatchesRawSource(r.counts.Source(owned)).
		Watches(&pappsv1.Deployment{}, kube.Gone(r.status.Forget, r.own.Forget)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Build(r)
	if err != nil {
		return err
	}
	r.config.Attach(mgr.GetCache(), c)
	return nil
}

// Reconcile takes one step of one Deployment's rollout, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	p, err := r.plan(ctx, s)
	if err != nil {
		return ctrl.Result{}, err
	}
	generation := s.deployment.Generation
	o, applyErr := r.apply(ctx, s, p)
	if s.deployment.Generation != generation {
		return ctrl.Result{RequeueAfter: retryDelay}, nil // a rollback on request changed the spec: what it means is planned anew
	}
	wait, reportErr := r.report(ctx, s, o)
	if applyErr == nil && reportErr == nil {
		var again time.Duration
		if again, applyErr = r.tidy(ctx, s, o); again > 0 && (wait == 0 || again < wait) {
			wait = again
		}
	}
	switch err := errors.Join(applyErr, reportErr); {
	case apierrors.IsConflict(applyErr), apierrors.IsConflict(reportErr), o.collided:
		return ctrl.Result{RequeueAfter: retryDelay}, nil
	case err != nil:
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// gather reads the Deployment and its ReplicaSets, after adopting and releasing. A nil scope means that there is nothing to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached pappsv1.Deployment
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.config.Forget(reconcile.Request{NamespacedName: key})
		}
		return nil, client.IgnoreNotFound(err)
	}
	d := r.status.Freshest(&cached)
	s := &scope{deployment: d, now: r.now(), since: r.since()}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, reconcile.TerminalError(fmt.Errorf("reading the selector: %w", err))
	}
	var all []*pappsv1.ReplicaSet
	for _, key := range []string{string(d.UID), kube.Orphan} {
		var list pappsv1.ReplicaSetList
		if err := r.client.List(ctx, &list, client.InNamespace(d.Namespace), client.MatchingFields{kube.ByController: key}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing ReplicaSets: %w", err)
		}
		for i := range list.Items {
			all = append(all, &list.Items[i])
		}
	}
	all = r.own.Apply(d.UID, all, s.now)
	all, err = kube.Claim(ctx, r.client, r.live, d, kind, workload.ClaimObjects(d, selector, all))
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.replicaSets = r.counted(all)
	s.pinned, err = r.config.Pin(ctx, d.Spec.RolloutOn, d, kind, &d.Spec.Template)
	return s, err
}

// tidy clears away the snapshots of config that no revision needs any longer, once the Deployment is at rest.
func (r *Reconciler) tidy(ctx context.Context, s *scope, o outcome) (time.Duration, error) {
	if s.pinned.Template == nil || s.target.foreign || !atRest(s, o) {
		return 0, nil
	}
	templates := []*pcorev1.PodTemplateSpec{s.pinned.Template}
	for _, rs := range o.replicaSets {
		if rs.DeletionTimestamp == nil {
			templates = append(templates, &rs.Spec.Template)
		}
	}
	return r.config.Prune(ctx, s.deployment, templates, s.now)
}

// plan reads the settings and plans. A spec that can't be understood becomes a condition, not a retry.
func (r *Reconciler) plan(ctx context.Context, s *scope) (plan, error) {
	var err error
	if s.settings, err = readSettings(&s.deployment.Spec); err == nil {
		return makePlan(s)
	}
	if writeErr := r.write(ctx, s, invalidStatus(s, err)); writeErr != nil {
		return plan{}, fmt.Errorf("writing the status: %w", writeErr)
	}
	return plan{}, reconcile.TerminalError(err)
}

// apply carries the plan out, the new ReplicaSet first, and returns what came of it.
func (r *Reconciler) apply(ctx context.Context, s *scope, p plan) (outcome, error) {
	o := outcome{replicaSets: s.replicaSets, estimate: p.estimate}
	uid := s.deployment.UID
	if err := r.config.Ensure(ctx, s.deployment, kind, p.snapshots); err != nil {
		if !apierrors.IsConflict(err) {
			o.createErr = err
		}
		return o, err
	}
	if p.create != nil {
		if err := r.create(ctx, s, p.create, &o); err != nil || o.collided {
			o.createErr = err
			return o, err
		}
	}
	if p.deployment != nil {
		if err := kube.Patch(ctx, r.client, p.deployment, s.deployment); err != nil {
			return o, fmt.Errorf("writing the revision: %w", err)
		}
		s.deployment = p.deployment
		r.status.Wrote(s.deployment, time.Time{}) // leaves the window open for the status
	}
	for _, c := range p.update {
		if err := kube.Patch(ctx, r.client, c.after, c.before); err != nil {
			return o, fmt.Errorf("sizing ReplicaSet %s: %w", c.before.Name, err)
		}
		r.own.Updated(uid, c.after, s.now)
	}
	for _, rs := range p.remove {
		err := r.client.Delete(ctx, rs.DeepCopy(), client.Preconditions{UID: &rs.UID, ResourceVersion: &rs.ResourceVersion})
		if client.IgnoreNotFound(err) != nil {
			return o, fmt.Errorf("deleting ReplicaSet %s: %w", rs.Name, err)
		}
		r.own.Deleted(uid, rs, s.now)
	}
	o.replicaSets = r.counted(r.own.Relay(uid, s.replicaSets))
	return o, nil
}

// counted returns the ReplicaSets with the statuses that their controller knows, which it may not have written yet.
func (r *Reconciler) counted(sets []*pappsv1.ReplicaSet) []*pappsv1.ReplicaSet {
	out := make([]*pappsv1.ReplicaSet, len(sets))
	for i, rs := range sets {
		out[i] = rs
		if status, ok := r.counts.Latest(rs.UID); ok {
			fresh := *rs
			fresh.Status = status
			out[i] = &fresh
		}
	}
	return out
}

// create makes the ReplicaSet of a new revision. When its name is held already, it is either ours from a time that the cache doesn't
// show yet, or a collision of hashes.
func (r *Reconciler) create(ctx context.Context, s *scope, rs *pappsv1.ReplicaSet, o *outcome) error {
	name := client.ObjectKeyFromObject(rs)
	err := r.client.Create(ctx, rs)
	if apierrors.IsAlreadyExists(err) {
		var there pappsv1.ReplicaSet
		if err := r.live.Get(ctx, name, &there); err != nil {
			return fmt.Errorf("reading ReplicaSet %s, which was there already: %w", name.Name, err)
		}
		if !metav1.IsControlledBy(&there, s.deployment) || !revision.Equal(&there.Spec.Template, &rs.Spec.Template) {
			o.collided = true
			return nil
		}
		rs, err = &there, nil
	}
	if err != nil {
		return fmt.Errorf("creating ReplicaSet %s: %w", name.Name, err)
	}
	r.own.Created(s.deployment.UID, rs, s.now)
	o.created = rs
	return nil
}

// report writes the status if it changed. wait is when to look again.
func (r *Reconciler) report(ctx context.Context, s *scope, o outcome) (wait time.Duration, err error) {
	status, wait := makeStatus(s, o)
	s.status = &status
	urgency := compareStatus(&s.deployment.Status, &status)
	if urgency == same {
		return wait, nil
	}
	if urgency == counting {
		if delay := r.status.Delay(s.deployment.UID, s.now); delay > 0 {
			return delay, nil // shorter than any deadline
		}
	}
	return wait, r.write(ctx, s, status)
}

func (r *Reconciler) write(ctx context.Context, s *scope, status pappsv1.DeploymentStatus) error {
	if compareStatus(&s.deployment.Status, &status) == same {
		return nil
	}
	d := s.deployment.DeepCopy()
	d.Status = status
	return r.status.Write(ctx, d, s.now)
}

// adopters returns the Deployments whose selector matches an orphaned ReplicaSet.
func (r *Reconciler) adopters(ctx context.Context, rs *pappsv1.ReplicaSet) []reconcile.Request {
	var list pappsv1.DeploymentList
	if err := r.client.List(ctx, &list, client.InNamespace(rs.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list Deployments that might adopt a ReplicaSet", "replicaSet", client.ObjectKeyFromObject(rs))
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(rs.Labels)) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}
