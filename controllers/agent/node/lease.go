// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// LeaseNamespace is where the nodes' leases are. It must exist; installing Pinnace makes it.
const LeaseNamespace = "pinnace-node-lease"

// leaseState is the lease as our last write left it. Only the renewal touches it.
type leaseState struct{ held *coordinationv1.Lease }

// renew renews a node's lease with one PUT, without reading it: nobody else writes it.
func (r *Reconciler) renew(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	n := r.find(req.Name)
	if n == nil {
		return reconcile.Result{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.LeaseEvery)
	defer cancel()
	if err := r.renewOnce(ctx, n); err != nil {
		// A lost renewal is no fault yet: the lease holds for several of them.
		logf.FromContext(ctx).V(1).Info("Renewing the lease failed, trying again", "reason", err.Error())
		n.lease.held = nil
		return reconcile.Result{RequeueAfter: min(r.options.LeaseEvery, time.Second)}, nil
	}
	// A little jitter keeps many nodes apart.
	spread := time.Duration(rand.Int64N(int64(r.options.LeaseEvery / 20)))
	return reconcile.Result{RequeueAfter: r.options.LeaseEvery - spread}, nil
}

func (r *Reconciler) renewOnce(ctx context.Context, n *state) error {
	if n.lease.held == nil {
		return r.takeLease(ctx, n)
	}
	wanted := n.lease.held.DeepCopy()
	r.fillLease(n, wanted)
	if err := r.client.Update(ctx, wanted); err != nil {
		return fmt.Errorf("renewing the lease: %w", err)
	}
	n.lease.held = wanted
	return nil
}

// takeLease makes the lease, or takes over the one that is there, by its resource version.
func (r *Reconciler) takeLease(ctx context.Context, n *state) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: LeaseNamespace, Name: n.Name}}
	r.fillLease(n, lease)
	err := r.client.Create(ctx, lease)
	if apierrors.IsAlreadyExists(err) {
		found := &coordinationv1.Lease{}
		if err := r.reader.Get(ctx, client.ObjectKeyFromObject(lease), found); err != nil {
			return fmt.Errorf("reading the lease: %w", err)
		}
		r.fillLease(n, found)
		lease, err = found, r.client.Update(ctx, found)
	}
	if err != nil {
		return fmt.Errorf("taking the lease: %w", err)
	}
	n.lease.held = lease
	return nil
}

func (r *Reconciler) fillLease(n *state, lease *coordinationv1.Lease) {
	seconds := int32(r.options.LeaseDuration / time.Second)
	now := metav1.NewMicroTime(r.options.Now())
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &n.Name, &seconds, &now
}
