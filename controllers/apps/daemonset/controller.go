// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=daemonsets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=daemonsets/status,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=daemonsets/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=controllerrevisions,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=configmaps;secrets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

var kind = pappsv1.GroupVersion.WithKind("DaemonSet")

// workers is how many DaemonSets are looked at in parallel.
const workers = 4

// Reconciler keeps the pods of DaemonSets.
type Reconciler struct {
	client    client.Client
	live      client.Reader
	pods      *kube.PodSet
	revisions *kube.RevisionSet
	status    *kube.StatusWriter[*pappsv1.DaemonSet]
	config    *kube.Configs
	events    events.EventRecorder
	now       func() time.Time
	// since is when the first DaemonSet was looked at.
	since func() time.Time

	mu sync.Mutex
	// known is what is remembered of each DaemonSet between two looks.
	known map[types.NamespacedName]*memory
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader) *Reconciler {
	return &Reconciler{
		client: c, live: live, now: time.Now,
		pods:      kube.NewPodSet(c, live),
		revisions: kube.NewRevisionSet(c, live),
		status:    kube.NewStatusWriter[*pappsv1.DaemonSet](c, kube.StatusWindow),
		config:    kube.NewConfigs(c, live),
		since:     sync.OnceValue(time.Now),
		known:     map[types.NamespacedName]*memory{},
	}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.events = mgr.GetEventRecorder("pinnace-daemonset")
	c, err := ctrl.NewControllerManagedBy(mgr).
		Named("daemonset").
		For(&pappsv1.DaemonSet{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&pcorev1.Pod{}, kube.Owned[*pcorev1.Pod]{
			Owner: kind, DelayOf: r.pods.Delay, Matters: workload.Matters, Adopters: adopters[*pcorev1.Pod](r), Own: r.pods.Own,
		}).
		Watches(&pappsv1.ControllerRevision{}, kube.Owned[*pappsv1.ControllerRevision]{
			Owner: kind, Delay: kube.PodDelay, Adopters: adopters[*pappsv1.ControllerRevision](r), Own: r.revisions.Own,
		}).
		Watches(&pcorev1.Node{}, nodeEvents{r}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Build(r)
	if err != nil {
		return err
	}
	r.config.Attach(mgr.GetCache(), c)
	return nil
}

// Reconcile takes one step of one DaemonSet, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil // the cache will have caught up
	case err != nil || s == nil:
		return ctrl.Result{}, err
	}
	p, err := makePlan(s)
	if err != nil {
		return ctrl.Result{}, r.refuse(ctx, s.set, reasonInvalid, err)
	}
	o := r.apply(ctx, s, p)
	wait, reportErr := r.report(ctx, s, o)
	switch applyErr := o.err(); {
	case applyErr != nil:
		return ctrl.Result{}, fmt.Errorf("keeping the pods: %w", applyErr)
	case apierrors.IsConflict(reportErr), o.more && reportErr == nil:
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil
	case reportErr != nil:
		return ctrl.Result{}, client.IgnoreNotFound(fmt.Errorf("writing the status: %w", reportErr))
	}
	again, err := r.trim(ctx, s)
	return ctrl.Result{RequeueAfter: soonest(soonest(wait, p.wait), again)}, err
}

// gather reads the DaemonSet, the nodes, and the set's pods and revisions, after adopting and releasing. A nil scope means that there is
// nothing more to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached pappsv1.DaemonSet
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(key)
			r.config.Forget(reconcile.Request{NamespacedName: key})
		}
		return nil, client.IgnoreNotFound(err)
	}
	set := r.status.Freshest(&cached)
	if set.DeletionTimestamp != nil {
		return nil, nil // its pods and revisions may be going already, so there is nothing left to say about them
	}
	s := &scope{set: set, now: r.now(), since: r.since()}
	var err error
	if s.settings, err = readSettings(&set.Spec); err != nil {
		return nil, r.refuse(ctx, set, reasonInvalid, err)
	}
	if err := r.revise(ctx, s); err != nil || s.target == nil {
		return nil, err
	}
	m := r.recall(key, s)
	s.match, s.backoff = m.match, m.backoff
	// The nodes are read after the matcher is known to the node events, so that no node falls between the two.
	if s.nodes, err = r.nodes(ctx); err != nil {
		return nil, err
	}
	all, err := r.pods.List(ctx, set, time.Now()) // the age of own writes, which goes by the machine's clock
	if err != nil {
		return nil, err
	}
	s.pods, err = kube.Claim(ctx, r.client, r.live, set, kind, workload.ClaimObjects(set, s.settings.selector, all))
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.foreign = r.pods.Foreign(set.UID)
	return s, nil
}

func (r *Reconciler) nodes(ctx context.Context) ([]*pcorev1.Node, error) {
	var list pcorev1.NodeList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	out := make([]*pcorev1.Node, len(list.Items))
	for i := range list.Items {
		out[i] = &list.Items[i]
	}
	return out, nil
}

// revise sees to it that the set's newest revision holds its template, and aims at the revision that is to be rolled out. In a namespace that is
// being deleted there may be none.
func (r *Reconciler) revise(ctx context.Context, s *scope) error {
	history, err := r.revisions.List(ctx, s.set, kind, s.settings.selector, s.now)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	if s.pinned, err = r.config.Pin(ctx, s.set.Spec.RolloutOn, s.set, kind, &s.set.Spec.Template); err != nil {
		return err
	}
	if elsewhere, err := s.aimElsewhere(history); err != nil || elsewhere {
		return err
	}
	if s.pinned.Missing != nil {
		return r.refuse(ctx, s.set, reasonConfigMissing, s.pinned.Missing)
	}
	if err := r.config.Ensure(ctx, s.set, kind, s.pinned.Snapshots); err != nil {
		return r.refuse(ctx, s.set, reasonFailedCreate, err)
	}
	for {
		owner := revision.HistoryOwner{Object: s.set, Kind: kind, HashLabel: revision.PodRevisionLabel}
		step, err := history.Step(owner, revision.Snapshot{Template: s.own()}, s.set.Status.CollisionCount)
		if err != nil {
			return r.refuse(ctx, s.set, reasonInvalid, err)
		}
		newest, collided, err := r.revisions.Ensure(ctx, s.set, step, s.now)
		switch {
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil
		case err != nil:
			return r.refuse(ctx, s.set, reasonFailedCreate, err)
		case !collided:
			s.aim(history, newest)
			return nil
		}
		if s.set, err = r.collide(ctx, s.set); err != nil {
			return err
		}
	}
}

// collide raises the collision count, so that the template is hashed to another name.
func (r *Reconciler) collide(ctx context.Context, set *pappsv1.DaemonSet) (*pappsv1.DaemonSet, error) {
	after := set.DeepCopy()
	if after.Status.CollisionCount == nil {
		after.Status.CollisionCount = new(int32)
	}
	*after.Status.CollisionCount++
	if err := r.status.Write(ctx, after, r.now()); err != nil {
		return nil, fmt.Errorf("writing the collision count: %w", err)
	}
	return after, nil
}

// apply carries the plan out, creations first, and lays what came of it over the scope's pods.
func (r *Reconciler) apply(ctx context.Context, s *scope, p plan) outcome {
	o := outcome{more: p.more || !p.idle()} // what follows from the plan shows in the next look
	uid := s.set.UID
	if len(p.create) > 0 {
		template := podTemplate(s)
		nodes := make(map[string]string, len(p.create))
		names := make([]string, len(p.create))
		for i, c := range p.create {
			names[i], nodes[c.name] = c.name, c.node
		}
		_, o.createErr = r.pods.CreateEach(ctx, s.set, kind, names, func(name string) *pcorev1.PodTemplateSpec {
			pinned := *template
			pinned.Spec.Affinity = workload.PinToNode(template.Spec.Affinity, nodes[name])
			return &pinned
		})
	}
	for _, pod := range p.replace {
		if node, ok := workload.TargetNode(pod); ok {
			s.backoff.Replaced(node, s.now)
			r.tell(s.set, pod, node)
		}
	}
	if len(p.remove) > 0 {
		o.deleteErr = r.pods.Delete(ctx, uid, p.remove)
	}
	if !p.idle() {
		s.pods, s.places = r.pods.Own.Relay(uid, s.pods), nil
	}
	if o.err() == nil {
		o.deleteErr = r.revisions.Delete(ctx, uid, p.surplus, s.now)
		if apierrors.IsConflict(o.deleteErr) {
			o.deleteErr, o.more = nil, true
		}
	}
	return o
}

// tell leaves a trace of a failed pod, which is about to go with all that it says.
func (r *Reconciler) tell(set *pappsv1.DaemonSet, pod *pcorev1.Pod, node string) {
	if r.events == nil {
		return
	}
	r.events.Eventf(set, pod, corev1.EventTypeWarning, "FailedDaemonPod", "ReplacePod",
		"Replaced pod %s, which failed on node %s: %s: %s", pod.Name, node, pod.Status.Reason, pod.Status.Message)
}

// report writes the status if it changed. wait is when to look again.
func (r *Reconciler) report(ctx context.Context, s *scope, o outcome) (wait time.Duration, err error) {
	status, wait := makeStatus(s, o)
	urgency := compareStatus(&s.set.Status, &status)
	if urgency == same {
		return wait, nil
	}
	if urgency == counting {
		if delay := r.status.Delay(s.set.UID, s.now); delay > 0 {
			return soonest(wait, delay), nil
		}
	}
	set := s.set.DeepCopy()
	set.Status = status
	return wait, r.status.Write(ctx, set, s.now)
}

// refuse says in the status why nothing was done, and returns what the queue is to be told: a user's mistake isn't tried again.
func (r *Reconciler) refuse(ctx context.Context, set *pappsv1.DaemonSet, reason string, cause error) error {
	v := condition.Verdict{State: condition.InProgress, Reason: reason, Message: cause.Error()}
	switch reason {
	case reasonInvalid:
		v.State, cause = condition.Failed, reconcile.TerminalError(cause)
	case reasonConfigMissing:
		v.Message, cause = cause.Error()+".", nil // the config will wake the set
	}
	after := set.DeepCopy()
	after.Status = withVerdict(set, v, r.now())
	if reason == reasonInvalid || reason == reasonConfigMissing {
		after.Status.ObservedGeneration = set.Generation
	}
	if compareStatus(&set.Status, &after.Status) == same || apierrors.IsConflict(cause) {
		return cause
	}
	if err := r.status.Write(ctx, after, r.now()); err != nil {
		return fmt.Errorf("writing the status: %w", client.IgnoreNotFound(err))
	}
	return cause
}

// trim clears away the snapshots of config that no revision needs any longer. wait is when to look again for those that are too young.
func (r *Reconciler) trim(ctx context.Context, s *scope) (wait time.Duration, err error) {
	if s.pinned.Template == nil || s.elsewhere {
		return 0, nil
	}
	templates := []*pcorev1.PodTemplateSpec{s.pinned.Template}
	for _, rev := range s.history {
		snapshot, err := revision.Read(rev)
		if err != nil {
			return 0, err
		}
		templates = append(templates, snapshot.Template)
	}
	return r.config.Prune(ctx, s.set, templates, s.now)
}
