// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicationcontroller

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=replicationcontrollers,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=replicationcontrollers/status,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=replicationcontrollers/finalizers,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;create;patch;delete

var kind = pcorev1.GroupVersion.WithKind("ReplicationController")

// scope is all that one look at a ReplicationController knows.
type scope = kube.ReplicaScope[*pcorev1.ReplicationController]

// Reconciler keeps the pods of ReplicationControllers. How it gathers, applies and reports stands in kube.ReplicaLoop.
type Reconciler struct {
	*kube.ReplicaLoop[*pcorev1.ReplicationController]
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader) *Reconciler {
	return &Reconciler{kube.NewReplicaLoop(c, live, kube.ReplicaKind[*pcorev1.ReplicationController]{
		Name: "replicationcontroller", GVK: kind,
		New:      func() *pcorev1.ReplicationController { return &pcorev1.ReplicationController{} },
		NewList:  func() client.ObjectList { return &pcorev1.ReplicationControllerList{} },
		Selector: func(rc *pcorev1.ReplicationController) (labels.Selector, error) { return selectorOf(rc), nil },
		Template: func(rc *pcorev1.ReplicationController) *pcorev1.PodTemplateSpec { return rc.Spec.Template },
		Plan:     makePlan,
		Status: func(s *scope, failure error) (*pcorev1.ReplicationController, workload.Urgency, time.Duration) {
			status, wait := makeStatus(s, failure)
			urgency := compareStatus(&s.Owner.Status, &status)
			if urgency == workload.Same {
				return s.Owner, urgency, wait
			}
			rc := s.Owner.DeepCopy()
			rc.Status = status
			return rc, urgency, wait
		},
	})}
}
