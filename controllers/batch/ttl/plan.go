// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ttl

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
)

// remaining is how long the Job may still stay, 0 when it may go now; limited is false when it stays as long as nobody deletes it.
func remaining(job *pbatchv1.Job, now time.Time) (left time.Duration, limited bool) {
	if job.DeletionTimestamp != nil || job.Spec.TTLSecondsAfterFinished == nil {
		return 0, false
	}
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			end := c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second)
			return max(0, end.Sub(now)), true
		}
	}
	return 0, false
}
