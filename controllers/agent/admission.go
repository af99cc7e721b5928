// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// admit gives a pod its room on the node when this agent first sees it, or says why not. What an agent has taken once is taken: whoever
// has a start time or a sandbox isn't asked again, nor is a static pod, for which nobody could find another node.
func (r *Reconciler) admit(ctx context.Context, rec *record, pod *pcorev1.Pod) (podFailure, error) {
	want := holdingOf(pod)
	if rec.node.Simulated || taken(pod) || pod.Annotations[annotationConfigSource] != "" {
		rec.node.ledger.hold(rec.uid, want)
		return podFailure{}, nil
	}
	if err := r.countTaken(ctx, rec.node); err != nil {
		return podFailure{}, err
	}
	on := place{allocatable: rec.node.Allocatable}
	if features, err := rec.node.features(ctx); err == nil {
		on.withoutGroupsPolicy = !features.SupplementalGroupsPolicy
	}
	judge := func(others holding) podFailure { return unfit(pod, want, others, on) }
	for _, from := range []client.Reader{r.client, r.refs.reader} {
		var err error
		if on.node, err = readNode(ctx, from, rec.node.Name); err != nil {
			return podFailure{}, err
		}
		why := rec.node.ledger.admit(rec.uid, want, judge)
		switch why.reason {
		case "":
			return podFailure{}, nil
		case reasonAffinity, reasonTaint:
			continue // The cache may be behind.
		}
		return r.unlessMade(ctx, rec, want, why)
	}
	return r.unlessMade(ctx, rec, want, rec.node.ledger.admit(rec.uid, want, judge))
}

// unlessMade takes a pod after all of which something is there: an agent before this one began, and couldn't tell.
func (r *Reconciler) unlessMade(ctx context.Context, rec *record, want holding, why podFailure) (podFailure, error) {
	seen, err := rec.node.observe(ctx, rec.uid)
	if err != nil || len(seen.sandboxes) == 0 {
		return why, err
	}
	rec.node.ledger.hold(rec.uid, want)
	return podFailure{}, nil
}

// taken says that an agent took the pod before, or that it is to end anyway.
func taken(pod *pcorev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.StartTime != nil
}

// countTaken notes, once, what the pods hold that an agent before this one took: those that are looked at first mustn't take their room.
func (r *Reconciler) countTaken(ctx context.Context, n *nodeState) error {
	n.counting.Lock()
	defer n.counting.Unlock()
	if n.counted {
		return nil
	}
	var pods pcorev1.PodList
	if err := r.client.List(ctx, &pods, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing the pods of the node: %w", err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.NodeName != n.Name || pod.Status.StartTime == nil || podstate.IsTerminal(pod.Status.Phase) {
			continue
		}
		// With a record, so that one that is gone before its turn is cleaned up after as any other.
		r.records.get(n, pod.UID, client.ObjectKeyFromObject(pod), r.options.Now())
		n.ledger.hold(pod.UID, holdingOf(allocationFromStatus(pod).apply(pod)))
	}
	n.counted = true
	return nil
}

// readNode is the Node object; nil while there is none.
func readNode(ctx context.Context, from client.Reader, name string) (*pcorev1.Node, error) {
	node := &pcorev1.Node{}
	err := from.Get(ctx, client.ObjectKey{Name: name}, node)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the node: %w", err)
	}
	return node, nil
}
