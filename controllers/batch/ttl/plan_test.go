// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ttl

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
)

func TestRemaining(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	job := func(ttl int32, kind batchv1.JobConditionType, status corev1.ConditionStatus, ago time.Duration) *pbatchv1.Job {
		j := &pbatchv1.Job{}
		if ttl >= 0 {
			j.Spec.TTLSecondsAfterFinished = &ttl
		}
		if kind != "" {
			j.Status.Conditions = []batchv1.JobCondition{{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-ago))}}
		}
		return j
	}
	dying := job(0, batchv1.JobComplete, corev1.ConditionTrue, time.Hour)
	dying.DeletionTimestamp = &metav1.Time{Time: now}
	for what, test := range map[string]struct {
		job     *pbatchv1.Job
		left    time.Duration
		limited bool
	}{
		"no time to live":           {job(-1, batchv1.JobComplete, corev1.ConditionTrue, time.Hour), 0, false},
		"not finished":              {job(5, batchv1.JobSuspended, corev1.ConditionTrue, time.Hour), 0, false},
		"not finished after all":    {job(5, batchv1.JobComplete, corev1.ConditionFalse, time.Hour), 0, false},
		"complete, with time left":  {job(60, batchv1.JobComplete, corev1.ConditionTrue, 20*time.Second), 40 * time.Second, true},
		"failed, and time is up":    {job(60, batchv1.JobFailed, corev1.ConditionTrue, time.Minute), 0, true},
		"at once":                   {job(0, batchv1.JobComplete, corev1.ConditionTrue, 0), 0, true},
		"it is being deleted":       {dying, 0, false},
		"a clock that is behind us": {job(10, batchv1.JobComplete, corev1.ConditionTrue, -time.Minute), 70 * time.Second, true},
	} {
		left, limited := remaining(test.job, now)
		if left != test.left || limited != test.limited {
			t.Errorf("%s: %s, %t; want %s, %t", what, left, limited, test.left, test.limited)
		}
	}
}
