// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"fmt"
	"math"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// DeletionTimeout is how long a pod that was noted as evicted counts as gone while nobody deletes it. Upstream's.
const DeletionTimeout = 2 * time.Minute

// Selector returns the budget's selector: none selects nothing, an empty one all pods of the namespace.
func Selector(spec *policyv1.PodDisruptionBudgetSpec) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(spec.Selector)
}

// NeedsScale says whether a budget is measured against what the pods' owners want rather than against the pods that are there.
func NeedsScale(spec *policyv1.PodDisruptionBudgetSpec) bool {
	return spec.MaxUnavailable != nil || spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.String
}

// Target returns how many pods a budget expects, and how many of them are to be healthy. matching is the number of pods that it selects,
// scale what their owners want together; only needed where NeedsScale says so. Percentages round up.
func Target(spec *policyv1.PodDisruptionBudgetSpec, matching, scale int32) (expected, healthy int32, err error) {
	share := func(amount *intstr.IntOrString) (int32, error) {
		n, err := intstr.GetScaledValueFromIntOrPercent(amount, int(scale), true)
		if err != nil {
			return 0, fmt.Errorf("reading %q as a number or a percentage: %w", amount.String(), err)
		}
		return int32(min(max(n, 0), math.MaxInt32)), nil //nolint:gosec // it is bounded here
	}
	switch {
	case spec.MaxUnavailable != nil:
		n, err := share(spec.MaxUnavailable)
		return scale, max(0, scale-n), err
	case spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.Int:
		return matching, spec.MinAvailable.IntVal, nil
	case spec.MinAvailable != nil:
		n, err := share(spec.MinAvailable)
		return scale, n, err
	}
	return 0, 0, nil
}

// Pending returns those of the noted evictions that are still to happen: of pods that are there, that nobody has deleted yet, and that
// were noted not longer than DeletionTimeout ago. recheck is when the first of them runs out; zero when there is none. expired are the
// names of the pods that nobody deleted in time.
func Pending(noted map[string]metav1.Time, pods []*pcorev1.Pod, now time.Time) (pending map[string]metav1.Time, recheck time.Time, expired []*pcorev1.Pod) {
	for _, pod := range pods {
		at, ok := noted[pod.Name]
		if !ok || pod.DeletionTimestamp != nil || pod.CreationTimestamp.After(at.Time) {
			continue // nobody asked for it, it is going, or it is the next one of the same name
		}
		end := at.Add(DeletionTimeout)
		if end.Before(now) {
			expired = append(expired, pod)
			continue
		}
		if pending == nil {
			pending = map[string]metav1.Time{}
		}
		pending[pod.Name] = at
		if recheck.IsZero() || end.Before(recheck) {
			recheck = end
		}
	}
	return pending, recheck, expired
}

// Healthy counts the pods that are ready and that nobody is about to take away.
func Healthy(pods []*pcorev1.Pod, pending map[string]metav1.Time) int32 {
	var n int32
	for _, pod := range pods {
		if _, going := pending[pod.Name]; !going && pod.DeletionTimestamp == nil && workload.IsReady(pod) {
			n++
		}
	}
	return n
}

// Allowed returns how many pods may be disrupted now. A budget that expects none allows none, so that it is safe when its first pods come.
func Allowed(healthy, desired, expected int32) int32 {
	if expected <= 0 {
		return 0
	}
	return max(0, healthy-desired)
}
