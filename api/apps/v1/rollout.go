// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FailureAction is what becomes of a rollout that misses its progress deadline.
// +kubebuilder:validation:Enum=Rollback
type FailureAction string

// FailureRollback goes back to the last revision that was complete.
const FailureRollback FailureAction = "Rollback"

// RolloutTrigger is what starts a rollout.
// +kubebuilder:validation:Enum=Template;Config
type RolloutTrigger string

const (
	// RolloutOnTemplate rolls out when the pod template changes, as upstream does. It is the default.
	RolloutOnTemplate RolloutTrigger = "Template"
	// RolloutOnConfig rolls out as well when the content of a ConfigMap or Secret changes that the pod template refers to.
	RolloutOnConfig RolloutTrigger = "Config"
)

// RolloutSpec holds Pinnace's extensions of how a workload rolls out. All are optional and off by default.
type RolloutSpec struct {
	// onFailure is an extension: with Rollback, a rollout that misses its progress deadline goes back to the last revision that was
	// complete. The spec stays as it was written; status.rollback says what happened, and only a change of the spec tries again.
	// +optional
	OnFailure FailureAction `json:"onFailure,omitempty"`
	// rolloutOn is an extension: with Config, the content of every ConfigMap and Secret that the pod template refers to is part of the
	// revision, so that a change of it rolls out and a rollback brings the old content back.
	// +optional
	RolloutOn RolloutTrigger `json:"rolloutOn,omitempty"`
}

// RolloutStatus is what Pinnace's extensions of a rollout remember.
type RolloutStatus struct {
	// lastCompleteRevision is an extension: the name of the ReplicaSet or ControllerRevision whose rollout was complete last.
	// +optional
	LastCompleteRevision string `json:"lastCompleteRevision,omitempty"`
	// rollback is an extension: the automatic rollback that is in force, until the spec changes in anything but its size and its pause, or
	// the config changes that it rolls out on.
	// +optional
	Rollback *RollbackStatus `json:"rollback,omitempty"`
	// progress is an extension: how far the rollout got that is under way; only with onFailure.
	// +optional
	Progress *RolloutProgress `json:"progress,omitempty"`
}

// RolloutProgress is how far a rollout got at its best. A pod that becomes ready and fails again and again is progress once.
type RolloutProgress struct {
	// revision is the name of the ReplicaSet or ControllerRevision that is rolled out.
	Revision string `json:"revision"`
	// updated is the most pods that the revision had.
	// +optional
	Updated int32 `json:"updated,omitempty"`
	// available is the most pods of the revision that were available.
	// +optional
	Available int32 `json:"available,omitempty"`
	// old is the fewest pods that other revisions had.
	// +optional
	Old int32 `json:"old,omitempty"`
	// time is when the rollout got that far.
	Time metav1.Time `json:"time"`
}

// RollbackStatus describes an automatic rollback.
type RollbackStatus struct {
	// generation is the metadata.generation whose rollout failed.
	Generation int64 `json:"generation"`
	// intent is a hash of what failed: the spec without its size and its pause, and the config that it rolls out on. Another intent
	// ends the rollback.
	Intent string `json:"intent"`
	// failedRevision is the name of the ReplicaSet or ControllerRevision that failed.
	FailedRevision string `json:"failedRevision"`
	// revision is the name of the ReplicaSet or ControllerRevision that is rolled out instead.
	Revision string `json:"revision"`
	// reason is that of the first failing pod.
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says in one sentence what failed.
	// +optional
	Message string `json:"message,omitempty"`
	// time is when the rollout was given up.
	Time metav1.Time `json:"time"`
}
