// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package statefulset keeps the pods of StatefulSets, each under its own name and with its own claims, and replaces them one by one when
// the template changes. The rules are upstream's (k8s.io/kubernetes pkg/controller/statefulset); the shape is ours: controller.go
// gathers, applies and reports, plan.go and the files beside it decide, without doing anything. Only internal/setup enters.
//
// One look goes like this:
//
//	history          ─► the revision that is current, and the one to roll out      (rollout.go)
//	pods in range    ─► in ordinal order: make, replace what ended, repair         (plan.go, pod.go, claim.go)
//	pods beyond it   ─► highest first: delete                                      (plan.go)
//	RollingUpdate    ─► highest first, within maxUnavailable: delete old revisions (update.go)
//
// With OrderedReady each line waits until the pods of the line above are available; with Parallel nothing waits but the update. The
// plan is a list of stages, each a list of tasks; a failure ends it, and the next look starts from what is there.
package statefulset
