// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	"github.com/pinnace-dev/pinnace/controllers/apps/daemonset"
	"github.com/pinnace-dev/pinnace/controllers/apps/deployment"
	"github.com/pinnace-dev/pinnace/controllers/apps/replicaset"
	"github.com/pinnace-dev/pinnace/controllers/apps/replicationcontroller"
	"github.com/pinnace-dev/pinnace/controllers/apps/statefulset"
	"github.com/pinnace-dev/pinnace/controllers/batch/cronjob"
	"github.com/pinnace-dev/pinnace/controllers/batch/job"
	"github.com/pinnace-dev/pinnace/controllers/batch/ttl"
	"github.com/pinnace-dev/pinnace/controllers/network/endpointslice"
	"github.com/pinnace-dev/pinnace/controllers/network/service"
	"github.com/pinnace-dev/pinnace/controllers/node/access"
	"github.com/pinnace-dev/pinnace/controllers/node/ipam"
	"github.com/pinnace-dev/pinnace/controllers/node/lifecycle"
	"github.com/pinnace-dev/pinnace/controllers/node/podgc"
	"github.com/pinnace-dev/pinnace/controllers/node/tainteviction"
	"github.com/pinnace-dev/pinnace/controllers/placement"
	"github.com/pinnace-dev/pinnace/controllers/policy/disruption"
	"github.com/pinnace-dev/pinnace/internal/kube"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// managerOptions are what every process of ours shares: the scheme, a slim cache, writes on a connection of their own, no
// listener.
func managerOptions() ctrl.Options {
	return ctrl.Options{
		Scheme:                 NewScheme(),
		Cache:                  cache.Options{DefaultTransform: kube.Slim},
		NewClient:              kube.NewClient,
		Metrics:                noListener,
		HealthProbeBindAddress: "0",
		Client: client.Options{Cache: &client.CacheOptions{
			// Nobody caches what may be large, secret, or rarely needed.
			DisableFor: []client.Object{&corev1.ConfigMap{}, &corev1.Secret{}, &pcorev1.ConfigMap{}, &pcorev1.Secret{}},
		}},
	}
}

// controller is what each room of controllers offers.
type controller interface {
	SetupWithManager(mgr ctrl.Manager) error
}

// addManagerControllers adds the loops of the manager's process.
func addManagerControllers(ctx context.Context, mgr ctrl.Manager, o ManagerOptions) error {
	if err := kube.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("adding the indexes: %w", err)
	}
	c, live := mgr.GetClient(), mgr.GetAPIReader()
	addresses, err := ipam.NewReconciler(c, live, ipam.Options{PodCIDR: o.ClusterCIDR})
	if err != nil {
		return err
	}
	services, err := service.NewReconciler(c, live, service.Options{ServiceCIDR: o.ServiceCIDR})
	if err != nil {
		return err
	}
	placer := placement.NewReconciler(c)
	c = kube.WithPlacer(c, placer) // who makes pods makes them on their nodes, where there is room
	counts := kube.NewRelay[pappsv1.ReplicaSetStatus]()
	return setUp(mgr,
		deployment.NewReconciler(c, live, counts),
		replicaset.NewReconciler(c, live, counts),
		replicationcontroller.NewReconciler(c, live),
		daemonset.NewReconciler(c, live),
		statefulset.NewReconciler(c, live),
		cronjob.NewReconciler(c, live, cronjob.Options{}),
		disruption.NewReconciler(c, disruption.Options{}),
		job.NewReconciler(c, live),
		ttl.NewReconciler(c, live),
		placer,
		services,
		endpointslice.NewReconciler(c),
		addresses,
		lifecycle.NewReconciler(c, lifecycle.Options{}),
		access.NewReconciler(c),
		podgc.NewReconciler(c, live, podgc.Options{}),
		tainteviction.NewReconciler(c),
	)
}

// setUp adds controllers to the manager.
func setUp(mgr ctrl.Manager, controllers ...controller) error {
	for _, c := range controllers {
		if err := c.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("setting up %T: %w", c, err)
		}
	}
	return nil
}
