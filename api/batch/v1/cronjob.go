// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=cronjobs,shortName=pcj,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// CronJob makes jobs on a schedule; upstream's batch/v1 CronJob.
type CronJob struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec CronJobSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status CronJobStatus `json:"status,omitempty"`
}

// CronJobSpec is upstream's, over Pinnace's job template.
type CronJobSpec struct {
	// schedule is the schedule in cron's form.
	Schedule string `json:"schedule"`
	// timeZone is the schedule's time zone by its IANA name.
	// +optional
	TimeZone *string `json:"timeZone,omitempty"`
	// startingDeadlineSeconds is how many seconds late a run may start.
	// +optional
	StartingDeadlineSeconds *int64 `json:"startingDeadlineSeconds,omitempty"`
	// concurrencyPolicy is Allow (the default), Forbid or Replace.
	// +optional
	ConcurrencyPolicy batchv1.ConcurrencyPolicy `json:"concurrencyPolicy,omitempty"`
	// suspend when true starts no further runs.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
	// jobTemplate is the job that is made.
	JobTemplate JobTemplateSpec `json:"jobTemplate"`
	// successfulJobsHistoryLimit is how many succeeded jobs are kept; 3 when absent.
	// +optional
	SuccessfulJobsHistoryLimit *int32 `json:"successfulJobsHistoryLimit,omitempty"`
	// failedJobsHistoryLimit is how many failed jobs are kept; 1 when absent.
	// +optional
	FailedJobsHistoryLimit *int32 `json:"failedJobsHistoryLimit,omitempty"`
}

// JobTemplateSpec is the job that a CronJob makes.
type JobTemplateSpec struct {
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the wanted behaviour of the job.
	// +optional
	Spec JobSpec `json:"spec,omitempty"`
}

// CronJobStatus is what was last observed. Only its controllers write it.
type CronJobStatus struct {
	batchv1.CronJobStatus `json:",inline"`

	// observedGeneration is the metadata.generation that this status describes; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions holds the kstatus conditions Ready, Reconciling and Stalled, and those of upstream.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// CronJobList is a list of CronJob.
type CronJobList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CronJob `json:"items"`
}
