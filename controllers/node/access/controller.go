// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// To grant a right takes either the right itself or escalate and bind; the policy pinnace-node-access holds these two to the
// roles that this room makes.
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get;list;watch
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=roles,verbs=get;list;watch;create;update;delete;escalate;bind
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=get;list;watch;create;update;delete

const (
	// Label marks the Roles and RoleBindings of this room, and lets the manager's cache hold no others.
	Label = "pinnace.dev/node-access"
	// prefix of the names of Roles and RoleBindings, before the node's name, and of an agent's user name.
	prefix     = "pinnace:node:"
	userPrefix = "system:pinnace:node:"
	// retryDelay is how long a look waits whose cache was behind.
	retryDelay = 20 * time.Millisecond
	// workers is how many pairs of node and namespace are looked at in parallel. A pod may be waiting for it.
	workers = 8
)

// Reconciler keeps the roles. A request names a node and a namespace.
type Reconciler struct{ client client.Client }

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes and the objects with Label.
func NewReconciler(c client.Client) *Reconciler { return &Reconciler{client: c} }

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	byNode := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, obj client.Object) []reconcile.Request {
		node, ours := strings.CutPrefix(obj.GetName(), prefix)
		if !ours {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: obj.GetNamespace(), Name: node}}}
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("node-access").
		Watches(&pcorev1.Pod{}, r.podEvents()).
		Watches(&corev1.ServiceAccount{}, handler.EnqueueRequestsFromMapFunc(r.nodesOf), builder.WithPredicates(pullSecretsChange)).
		Watches(&rbacv1.Role{}, byNode).
		Watches(&rbacv1.RoleBinding{}, byNode).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Complete(r)
}

// pullSecretsChange lets a service account through when it comes with pull secrets, changes them, or goes with them.
var pullSecretsChange = predicate.Funcs{
	CreateFunc: func(e event.CreateEvent) bool { return len(pullSecrets(e.Object)) > 0 },
	UpdateFunc: func(e event.UpdateEvent) bool {
		return !slices.Equal(pullSecrets(e.ObjectOld), pullSecrets(e.ObjectNew))
	},
	DeleteFunc: func(e event.DeleteEvent) bool { return len(pullSecrets(e.Object)) > 0 },
}

func pullSecrets(obj client.Object) []string {
	if account, ok := obj.(*corev1.ServiceAccount); ok {
		return podstate.PullSecrets(account)
	}
	return nil
}

// nodesOf are the nodes with pods that pull as a service account.
func (r *Reconciler) nodesOf(ctx context.Context, account client.Object) []reconcile.Request {
	var pods pcorev1.PodList
	if err := r.client.List(ctx, &pods, client.InNamespace(account.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		logf.FromContext(ctx).Error(err, "Listing the pods of a service account failed", "serviceAccount", klog.KObj(account))
		return nil
	}
	seen := map[string]bool{}
	var out []reconcile.Request
	for i := range pods.Items {
		pod := &pods.Items[i]
		if node := pod.Spec.NodeName; node != "" && !seen[node] && pullsAs(pod) == account.GetName() {
			seen[node] = true
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: pod.Namespace, Name: node}})
		}
	}
	return out
}

// pulls are the pull secrets of the accounts that these pods, of one namespace, pull as.
func (r *Reconciler) pulls(ctx context.Context, pods []*pcorev1.Pod) (map[string][]string, error) {
	out := map[string][]string{}
	for _, pod := range pods {
		name := pullsAs(pod)
		if _, known := out[name]; known || name == "" {
			continue
		}
		account := &corev1.ServiceAccount{}
		err := r.client.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name}, account)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading the service account %s/%s: %w", pod.Namespace, name, err)
		}
		out[name] = podstate.PullSecrets(account)
	}
	return out, nil
}

// podEvents wakes for pods that refer to something, when they come to a node, when they end, and when they are gone.
func (r *Reconciler) podEvents() handler.Funcs {
	wake := func(ctx context.Context, obj client.Object, q kube.Queue) {
		pod, ok := obj.(*pcorev1.Pod)
		if !ok || pod.Spec.NodeName == "" {
			return
		}
		// What can't be read now is read, or fails, in the look that follows.
		pulls, err := r.pulls(ctx, []*pcorev1.Pod{pod})
		if err != nil || len(pulls[pullsAs(pod)]) > 0 || refersToAny(pod) {
			q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Spec.NodeName}})
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q kube.Queue) { wake(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Pod)
			after, ok2 := e.ObjectNew.(*pcorev1.Pod)
			if !ok || !ok2 {
				return
			}
			ended := podstate.IsTerminal(before.Status.Phase) != podstate.IsTerminal(after.Status.Phase)
			if before.Spec.NodeName != after.Spec.NodeName || ended || len(before.Spec.EphemeralContainers) != len(after.Spec.EphemeralContainers) {
				wake(ctx, after, q)
				wake(ctx, before, q)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q kube.Queue) { wake(ctx, e.Object, q) },
	}
}

// Reconcile brings the Role and the RoleBinding of one node in one namespace up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pods pcorev1.PodList
	err := r.client.List(ctx, &pods, client.InNamespace(req.Namespace), client.MatchingFields{kube.ByNode: req.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("listing the pods of node %s: %w", req.Name, err)
	}
	list := make([]*pcorev1.Pod, len(pods.Items))
	for i := range pods.Items {
		list[i] = &pods.Items[i]
	}
	pulls, err := r.pulls(ctx, list)
	if err != nil {
		return ctrl.Result{}, err
	}
	rules := makeRules(list, pulls)
	if err = r.role(ctx, req, rules); err == nil {
		err = r.binding(ctx, req, len(rules) > 0)
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return ctrl.Result{RequeueAfter: retryDelay}, nil // The cache was behind.
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil // The namespace is going, and takes everything along.
	}
	return ctrl.Result{}, err
}

// role writes the Role, or deletes it when nothing is to be allowed.
func (r *Reconciler) role(ctx context.Context, req ctrl.Request, rules []rbacv1.PolicyRule) error {
	role := &rbacv1.Role{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: req.Namespace, Name: prefix + req.Name}, role)
	switch {
	case apierrors.IsNotFound(err) && len(rules) == 0:
		return nil
	case apierrors.IsNotFound(err):
		role.ObjectMeta = meta(req)
		role.Rules = rules
		return r.client.Create(ctx, role)
	case err != nil:
		return fmt.Errorf("reading the role of node %s: %w", req.Name, err)
	case len(rules) == 0:
		return client.IgnoreNotFound(r.client.Delete(ctx, role, client.Preconditions{UID: &role.UID}))
	case equality.Semantic.DeepEqual(role.Rules, rules):
		return nil
	}
	role.Rules = rules
	return r.client.Update(ctx, role)
}

// binding writes the RoleBinding once, or deletes it when nothing is to be allowed. Its content never changes.
func (r *Reconciler) binding(ctx context.Context, req ctrl.Request, wanted bool) error {
	binding := &rbacv1.RoleBinding{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: req.Namespace, Name: prefix + req.Name}, binding)
	switch {
	case apierrors.IsNotFound(err) && wanted:
		binding.ObjectMeta = meta(req)
		binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: prefix + req.Name}
		binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: userPrefix + req.Name}}
		return r.client.Create(ctx, binding)
	case apierrors.IsNotFound(err), err == nil && wanted:
		return nil
	case err != nil:
		return fmt.Errorf("reading the role binding of node %s: %w", req.Name, err)
	}
	return client.IgnoreNotFound(r.client.Delete(ctx, binding, client.Preconditions{UID: &binding.UID}))
}

func meta(req ctrl.Request) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: req.Namespace, Name: prefix + req.Name,
		Labels: map[string]string{Label: "true", "app.kubernetes.io/part-of": "pinnace"},
	}
}
