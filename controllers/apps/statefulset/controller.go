// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=statefulsets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=statefulsets/status,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=statefulsets/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=controllerrevisions,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods/finalizers,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=persistentvolumeclaims,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=configmaps;secrets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups=storage.pinnace.dev,resources=storageclasses,verbs=get;list;watch

var (
	kind    = pappsv1.GroupVersion.WithKind("StatefulSet")
	podKind = pcorev1.GroupVersion.WithKind("Pod")
)

// workers is how many StatefulSets are looked at in parallel.
const workers = 8

// Reconciler keeps the pods of StatefulSets.
type Reconciler struct {
	client    client.Client
	live      client.Reader
	pods      *kube.PodSet
	claims    *kube.Overlay[*pcorev1.PersistentVolumeClaim]
	revisions *kube.RevisionSet
	status    *kube.StatusWriter[*pappsv1.StatefulSet]
	config    *kube.Configs
	now       func() time.Time
	// since is when the first StatefulSet was looked at.
	since func() time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader) *Reconciler {
	return &Reconciler{
		client: c, live: live, now: time.Now,
		pods:      kube.NewPodSet(c, live),
		claims:    kube.NewOverlay((*pcorev1.PersistentVolumeClaim).DeepCopy),
		revisions: kube.NewRevisionSet(c, live),
		status:    kube.NewStatusWriter[*pappsv1.StatefulSet](c, kube.StatusWindow),
		config:    kube.NewConfigs(c, live),
		since:     sync.OnceValue(time.Now),
	}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	c, err := ctrl.NewControllerManagedBy(mgr).
		Named("statefulset").
		For(&pappsv1.StatefulSet{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&pcorev1.Pod{}, kube.Owned[*pcorev1.Pod]{
			Owner: kind, DelayOf: r.pods.Delay, Matters: workload.Matters, Adopters: r.podAdopters, Own: r.pods.Own,
		}).
		Watches(&pappsv1.ControllerRevision{}, kube.Owned[*pappsv1.ControllerRevision]{
			Owner: kind, Delay: kube.PodDelay, Matters: renumbered, Own: r.revisions.Own,
		}).
		Watches(&pcorev1.PersistentVolumeClaim{}, r.claimHandler()).
		Watches(&pstoragev1.StorageClass{}, r.classHandler()).
		Watches(&pappsv1.StatefulSet{}, kube.Gone(r.status.Forget, r.pods.Forget, r.revisions.Own.Forget, r.claims.Forget)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Build(r)
	if err != nil {
		return err
	}
	r.config.Attach(mgr.GetCache(), c)
	return nil
}

// Reconcile takes one step of one StatefulSet, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if s.pinned.Missing != nil && len(s.history) == 0 {
		if err := r.write(ctx, s, missingStatus(s)); err != nil {
			return conflictSoon(err)
		}
		return ctrl.Result{}, nil // the config will wake it
	}
	o, err := r.revise(ctx, s)
	if err != nil {
		return conflictSoon(err)
	}
	if o.collided {
		return conflictSoon(r.write(ctx, s, collidedStatus(s)))
	}
	p := makePlan(s)
	o.blocked = p.blocked
	o.applyErr = r.apply(ctx, s, p)
	status, wait := makeStatus(s, o)
	delay, reportErr := r.report(ctx, s, status)
	if err := errors.Join(o.applyErr, reportErr); err != nil {
		return conflictSoon(err)
	}
	again, err := r.trim(ctx, s, &status)
	if err != nil {
		return conflictSoon(err)
	}
	wait = soonest(wait, again)
	if p.more {
		wait = kube.PodDelay
	}
	return ctrl.Result{RequeueAfter: soonest(wait, delay)}, nil
}

// conflictSoon turns a conflict into another look soon, by when the cache will have caught up.
func conflictSoon(err error) (ctrl.Result, error) {
	if err == nil || apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil
	}
	return ctrl.Result{}, err
}

// gather reads the set, its history and its pods, after adopting and releasing. A nil scope means that there is nothing to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached pappsv1.StatefulSet
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.config.Forget(reconcile.Request{NamespacedName: key})
		}
		return nil, err
	}
	set := r.status.Freshest(&cached)
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return nil, reconcile.TerminalError(fmt.Errorf("reading the selector: %w", err))
	}
	s := &scope{set: set, selector: selector, now: r.now(), since: r.since()}
	if s.settings, err = readSettings(&set.Spec); err != nil {
		if writeErr := r.write(ctx, s, invalidStatus(s, err)); writeErr != nil {
			return nil, fmt.Errorf("writing the status: %w", writeErr)
		}
		return nil, reconcile.TerminalError(err)
	}
	if s.history, err = r.revisions.List(ctx, set, kind, selector, s.now); err != nil {
		return nil, err
	}
	all, err := r.pods.List(ctx, set, s.now)
	if err != nil {
		return nil, err
	}
	s.pods, err = kube.Claim(ctx, r.client, r.live, set, kind, workload.ClaimObjects(set, selector, members(set.Name, all)))
	if err != nil {
		return nil, err
	}
	if err := r.gatherClaims(ctx, s); err != nil {
		return nil, err
	}
	if s.pinned, err = r.config.Pin(ctx, set.Spec.RolloutOn, set, kind, &set.Spec.Template); err != nil {
		return nil, err
	}
	s.attempt, err = makeAttempt(s)
	return s, err
}

// members are the pods whose names give them an ordinal in the set.
func members(set string, pods []*pcorev1.Pod) []*pcorev1.Pod {
	out := make([]*pcorev1.Pod, 0, len(pods))
	for _, pod := range pods {
		if ordinalOf(set, pod.Name) >= 0 {
			out = append(out, pod)
		}
	}
	return out
}

// gatherClaims reads the claims of the pods that are there or should be, and the classes of those that should grow.
func (r *Reconciler) gatherClaims(ctx context.Context, s *scope) error {
	s.claims, s.expandable = map[string]*pcorev1.PersistentVolumeClaim{}, map[string]bool{}
	names := map[string]bool{}
	for i := range s.set.Spec.VolumeClaimTemplates {
		template := s.set.Spec.VolumeClaimTemplates[i].Name
		for ordinal := s.settings.start; ordinal < s.settings.end(); ordinal++ {
			names[claimName(template, s.set.Name, ordinal)] = true
		}
		for _, pod := range s.pods {
			names[template+"-"+pod.Name] = true
		}
	}
	var found []*pcorev1.PersistentVolumeClaim
	for name := range names {
		claim := &pcorev1.PersistentVolumeClaim{}
		err := r.client.Get(ctx, client.ObjectKey{Namespace: s.set.Namespace, Name: name}, claim, client.UnsafeDisableDeepCopy)
		switch {
		case err == nil:
			found = append(found, claim)
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("reading claim %s: %w", name, err)
		}
	}
	for _, claim := range r.claims.Apply(s.set.UID, found, s.now) {
		s.claims[claim.Name] = claim
	}
	for _, name := range s.classesToKnow() {
		var class pstoragev1.StorageClass
		if err := r.client.Get(ctx, client.ObjectKey{Name: name}, &class, client.UnsafeDisableDeepCopy); err != nil {
			if apierrors.IsNotFound(err) {
				continue
			}
			return fmt.Errorf("reading StorageClass %s: %w", name, err)
		}
		s.expandable[name] = class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion
	}
	return nil
}

// revise makes the newest revision hold what is to be rolled out.
func (r *Reconciler) revise(ctx context.Context, s *scope) (o outcome, err error) {
	target, err := s.target()
	if err != nil {
		return o, err
	}
	if s.set.DeletionTimestamp != nil {
		// Nothing is made for a set that goes; its last revisions are named as they are.
		s.update = release{s.set.Status.UpdateRevision, target.Snapshot}
		s.current = release{s.set.Status.CurrentRevision, target.Snapshot}
		return o, nil
	}
	if !target.foreign {
		if err := r.config.Ensure(ctx, s.set, kind, s.pinned.Snapshots); err != nil {
			return o, err
		}
	}
	step, err := s.history.Step(historyOwner(s.set), target.Snapshot, s.set.Status.CollisionCount)
	if err != nil {
		return o, err
	}
	newest, collided, err := r.revisions.Ensure(ctx, s.set, step, s.now)
	if err != nil || collided {
		return outcome{collided: collided}, err
	}
	if step.Create != nil {
		s.history = append(s.history, newest)
	}
	s.update = release{newest.Name, target.Snapshot}
	s.current, err = s.findCurrent()
	return o, err
}

// trim deletes the revisions that are too old to be kept, and, once the set is at rest, the snapshots of config that none of the others
// needs. wait is when to try again. status is what was reported.
func (r *Reconciler) trim(ctx context.Context, s *scope, status *pappsv1.StatefulSetStatus) (wait time.Duration, err error) {
	if s.set.DeletionTimestamp != nil {
		return 0, nil
	}
	surplus := s.history.Surplus(s.settings.history, s.isLive(status.CurrentRevision))
	if err := r.revisions.Delete(ctx, s.set.UID, surplus, s.now); err != nil {
		return 0, err
	}
	if s.pinned.Template == nil || len(surplus) > 0 || status.CurrentRevision != status.UpdateRevision {
		return 0, nil // after the deletions of revisions there is another look
	}
	templates, err := s.templates()
	if err != nil {
		return 0, err
	}
	return r.config.Prune(ctx, s.set, templates, s.now)
}

// report writes the status if it changed. delay is when to try again, because it may wait.
func (r *Reconciler) report(ctx context.Context, s *scope, status pappsv1.StatefulSetStatus) (delay time.Duration, err error) {
	if compareStatus(&s.set.Status, &status) == counting {
		if delay := r.status.Delay(s.set.UID, s.now); delay > 0 {
			return delay, nil
		}
	}
	return 0, r.write(ctx, s, status)
}

func (r *Reconciler) write(ctx context.Context, s *scope, status pappsv1.StatefulSetStatus) error {
	if compareStatus(&s.set.Status, &status) == same {
		return nil
	}
	set := s.set.DeepCopy()
	set.Status = status
	if err := client.IgnoreNotFound(r.status.Write(ctx, set, s.now)); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// claimOwners returns the sets that a claim of that name may be of.
func (r *Reconciler) claimOwners(ctx context.Context, claim client.Object) []*pappsv1.StatefulSet {
	var list pappsv1.StatefulSetList
	if err := r.client.List(ctx, &list, client.InNamespace(claim.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list StatefulSets that a claim might be of", "claim", client.ObjectKeyFromObject(claim))
		return nil
	}
	var out []*pappsv1.StatefulSet
	for i := range list.Items {
		set := &list.Items[i]
		for j := range set.Spec.VolumeClaimTemplates {
			rest, ok := strings.CutPrefix(claim.GetName(), set.Spec.VolumeClaimTemplates[j].Name+"-")
			if ok && ordinalOf(set.Name, rest) >= 0 {
				out = append(out, set)
				break
			}
		}
	}
	return out
}
