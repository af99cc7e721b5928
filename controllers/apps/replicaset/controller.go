// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=replicasets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=replicasets/status,verbs=update
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=replicasets/finalizers,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;create;patch;delete

var kind = pappsv1.GroupVersion.WithKind("ReplicaSet")

// scope is all that one look at a ReplicaSet knows.
type scope = kube.ReplicaScope[*pappsv1.ReplicaSet]

// Reconciler keeps the pods of ReplicaSets. How it gathers, applies and reports stands in kube.ReplicaLoop.
type Reconciler struct {
	*kube.ReplicaLoop[*pappsv1.ReplicaSet]
	client client.Client
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache; counts is told what is
// counted, which need not be written yet.
func NewReconciler(c client.Client, live client.Reader, counts *kube.Relay[pappsv1.ReplicaSetStatus]) *Reconciler {
	r := &Reconciler{client: c}
	r.ReplicaLoop = kube.NewReplicaLoop(c, live, kube.ReplicaKind[*pappsv1.ReplicaSet]{
		Name: "replicaset", GVK: kind,
		New:     func() *pappsv1.ReplicaSet { return &pappsv1.ReplicaSet{} },
		NewList: func() client.ObjectList { return &pappsv1.ReplicaSetList{} },
		Selector: func(rs *pappsv1.ReplicaSet) (labels.Selector, error) {
			return metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		},
		Template:  func(rs *pappsv1.ReplicaSet) *pcorev1.PodTemplateSpec { return &rs.Spec.Template },
		Colocated: r.colocated,
		Plan:      makePlan,
		Status: func(s *scope, failure error) (*pappsv1.ReplicaSet, workload.Urgency, time.Duration) {
			status, wait := makeStatus(s, failure)
			urgency := compareStatus(&s.Owner.Status, &status)
			if urgency == workload.Same {
				return s.Owner, urgency, wait
			}
			rs := s.Owner.DeepCopy()
			rs.Status = status
			return rs, urgency, wait
		},
		Tell: func(before, after *pappsv1.ReplicaSet, written bool) {
			// That a size was seen is only told once it is written: a Deployment goes on from there, and one that comes after a crash must know of
			// all pods that were made till then.
			early := before.Status.ObservedGeneration == after.Status.ObservedGeneration
			if (early || written) && metav1.GetControllerOfNoCopy(after) != nil { // nobody else asks
				counts.Tell(after, *after.Status.DeepCopy(), written)
			}
		},
	})
	return r
}

// colocated counts, for each node, the active pods of the same application: those of this ReplicaSet and of the others
// that the same Deployment owns. It only looks when pods have to go.
func (r *Reconciler) colocated(ctx context.Context, s *scope) (map[string]int, error) {
	if !tooMany(s) {
		return nil, nil
	}
	rs, count := s.Owner, map[string]int{}
	workload.CountByNode(count, s.Pods)
	owner := metav1.GetControllerOfNoCopy(rs)
	if owner == nil {
		return count, nil
	}
	var siblings pappsv1.ReplicaSetList
	if err := r.client.List(ctx, &siblings, client.InNamespace(rs.Namespace), client.MatchingFields{kube.ByController: string(owner.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the other ReplicaSets of %s: %w", owner.Name, err)
	}
	for i := range siblings.Items {
		if siblings.Items[i].UID == rs.UID {
			continue
		}
		var pods pcorev1.PodList
		if err := r.client.List(ctx, &pods, client.InNamespace(rs.Namespace), client.MatchingFields{kube.ByController: string(siblings.Items[i].UID)}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing the pods of %s: %w", siblings.Items[i].Name, err)
		}
		for j := range pods.Items {
			workload.CountByNode(count, []*pcorev1.Pod{&pods.Items[j]})
		}
	}
	return count, nil
}
