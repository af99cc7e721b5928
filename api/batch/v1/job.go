// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=jobs,shortName=pjob,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// Job runs pods to completion; upstream's batch/v1 Job.
type Job struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec JobSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status JobStatus `json:"status,omitempty"`
}

// JobSpec is upstream's, over Pinnace's pod template.
type JobSpec struct {
	// parallelism is how many pods may run at once.
	// +optional
	Parallelism *int32 `json:"parallelism,omitempty"`
	// completions is how many pods must succeed.
	// +optional
	Completions *int32 `json:"completions,omitempty"`
	// activeDeadlineSeconds is for how many seconds the job may be active.
	// +optional
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
	// podFailurePolicy says what each sort of failed pod does to the job.
	// +optional
	PodFailurePolicy *batchv1.PodFailurePolicy `json:"podFailurePolicy,omitempty"`
	// successPolicy says when the job counts as succeeded.
	// +optional
	SuccessPolicy *batchv1.SuccessPolicy `json:"successPolicy,omitempty"`
	// backoffLimit is how many retries there are before the job fails; 6 when absent.
	// +optional
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`
	// backoffLimitPerIndex is how many retries each index has.
	// +optional
	BackoffLimitPerIndex *int32 `json:"backoffLimitPerIndex,omitempty"`
	// maxFailedIndexes is how many indexes may fail before the job does.
	// +optional
	MaxFailedIndexes *int32 `json:"maxFailedIndexes,omitempty"`
	// selector picks the pods; made by the system unless manualSelector is set.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// manualSelector when true lets the user choose the selector.
	// +optional
	ManualSelector *bool `json:"manualSelector,omitempty"`
	// template is the pods that are made.
	Template pcorev1.PodTemplateSpec `json:"template"`
	// ttlSecondsAfterFinished is after how many seconds a finished job is deleted.
	// +optional
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
	// completionMode is NonIndexed (the default) or Indexed.
	// +optional
	CompletionMode *batchv1.CompletionMode `json:"completionMode,omitempty"`
	// suspend when true stops the job's pods.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
	// podReplacementPolicy says when a pod is replaced.
	// +optional
	PodReplacementPolicy *batchv1.PodReplacementPolicy `json:"podReplacementPolicy,omitempty"`
	// managedBy names another controller that runs this job.
	// +optional
	ManagedBy *string `json:"managedBy,omitempty"`
	// mode is an extension: with OncePerNode, a pod runs to completion on every node that the template's node selector, node affinity
	// and tolerations let it run on; completions must be absent, and without parallelism all of them run at once.
	// +optional
	Mode JobMode `json:"mode,omitempty"`
}

// JobMode is what a job counts.
// +kubebuilder:validation:Enum=Completions;OncePerNode
type JobMode string

const (
	// JobCompletions counts completions, as upstream does. It is the default.
	JobCompletions JobMode = "Completions"
	// JobOncePerNode counts nodes: one pod on every matching node.
	JobOncePerNode JobMode = "OncePerNode"
)

// JobStatus is what was last observed. Only its controllers write it.
type JobStatus struct {
	batchv1.JobStatus `json:",inline"`

	// observedGeneration is the metadata.generation that this status describes; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// matchingNodes is an extension: with mode OncePerNode, the number of nodes that the job's pods belong on.
	// +optional
	MatchingNodes *int32 `json:"matchingNodes,omitempty"`
	// completedNodes is an extension: with mode OncePerNode, the names of the nodes on which a pod succeeded, in order.
	// +optional
	// +listType=set
	CompletedNodes []string `json:"completedNodes,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// JobList is a list of Job.
type JobList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Job `json:"items"`
}
