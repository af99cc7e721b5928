// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package deployment rolls out Deployments: it makes a ReplicaSet for each revision of the pod template and moves the pods
// from the old ones to the new one within the bounds that the strategy sets. The rules are upstream's
// (k8s.io/kubernetes pkg/controller/deployment); the shape is ours: controller.go gathers, applies and reports, plan.go and the
// files beside it decide, without doing anything. Only internal/setup enters.
//
// One look goes like this:
//
//	which template?  ─► the spec's, with its config pinned; or what a failed rollout went back to   (plan_target.go)
//	paused or scaled ─► size the ReplicaSets in proportion        (scale.go)
//	rollback asked   ─► take an old template over
//	RollingUpdate    ─► new up within maxSurge, old down within maxUnavailable   (rolling.go)
//	Recreate         ─► old to zero, wait for the pods' end, new up              (recreate.go)
//
// followed by the clean-up of old revisions and the status, which says in one sentence why the rollout isn't done.
package deployment
