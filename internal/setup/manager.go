// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/pinnace-dev/pinnace/controllers/node/access"
	"github.com/pinnace-dev/pinnace/controllers/node/lifecycle"
)

// ManagerOptions say how the manager runs.
type ManagerOptions struct {
	// Kubeconfig is a file; empty means $KUBECONFIG, then the service account of the pod that this process runs in.
	Kubeconfig string
	// LeaderElect lets one of several managers work at a time.
	LeaderElect bool
	// LeaderElectionNamespace is where the lease is.
	LeaderElectionNamespace string
	// ClusterCIDR is the network of all pods, ServiceCIDR that of Pinnace's services.
	ClusterCIDR, ServiceCIDR string
	// Subresources say how log, exec and the like of pods are served.
	Subresources SubresourcesOptions
	Log          LogOptions
}

// NewManagerOptions returns the defaults.
func NewManagerOptions() ManagerOptions {
	return ManagerOptions{
		LeaderElect:             true,
		LeaderElectionNamespace: "pinnace-system",
		ClusterCIDR:             "10.244.0.0/16",
		ServiceCIDR:             "10.97.0.0/16",
	}
}

// RunManager runs the manager's controllers until the context ends.
func RunManager(ctx context.Context, o ManagerOptions) error {
	logger, err := o.Log.install()
	if err != nil {
		return err
	}
	config, err := restConfig(o.Kubeconfig)
	if err != nil {
		return err
	}
	options := managerOptions()
	// Leases of others than nodes are none of ours to read, nor are others' roles.
	access := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{access.Label: "true"})}
	options.Cache.ByObject = map[client.Object]cache.ByObject{
		&rbacv1.Role{}:          access,
		&rbacv1.RoleBinding{}:   access,
		&coordinationv1.Lease{}: {Namespaces: map[string]cache.Config{lifecycle.LeaseNamespace: {}}},
	}
	options.LeaderElection = o.LeaderElect
	options.LeaderElectionID = "pinnace-manager"
	options.LeaderElectionNamespace = o.LeaderElectionNamespace
	options.LeaderElectionReleaseOnCancel = true
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return fmt.Errorf("making the manager: %w", err)
	}
	if err := addManagerControllers(ctx, mgr, o); err != nil {
		return err
	}
	if err := addSubresources(ctx, mgr, config, o.Subresources); err != nil {
		return err
	}
	if err := returnStartupMemory(mgr); err != nil {
		return err
	}
	logger.Info("Starting the manager", "host", config.Host)
	return mgr.Start(ctx)
}

// restConfig finds the API server. Our processes are bounded by what they do and by the API server's own fairness, not
// by a bucket on the client's side.
func restConfig(kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server: name a kubeconfig with --kubeconfig or $KUBECONFIG: %w", err)
	}
	config.QPS = -1
	config.UserAgent = "pinnace"
	return config, nil
}

// noListener turns controller-runtime's metrics server off, which would listen without TLS.
var noListener = metricsserver.Options{BindAddress: "0"}
