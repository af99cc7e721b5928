// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pautoscalingv2 "github.com/pinnace-dev/pinnace/api/autoscaling/v2"
	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
	pnetworkingv1 "github.com/pinnace-dev/pinnace/api/networking/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
)

// NewScheme holds all of Pinnace's kinds and, of upstream's, the few groups that are used as they are. Adding all of
// client-go's scheme would cost several megabytes in each process.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		authenticationv1.AddToScheme, authorizationv1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme, eventsv1.AddToScheme, rbacv1.AddToScheme,
		pappsv1.AddToScheme, pautoscalingv2.AddToScheme, pbatchv1.AddToScheme, pcorev1.AddToScheme,
		pdiscoveryv1.AddToScheme, pnetworkingv1.AddToScheme, ppolicyv1.AddToScheme, pstoragev1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	return scheme
}
