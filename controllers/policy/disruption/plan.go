// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/disruption"
)

// scope is all that one look at a budget knows.
type scope struct {
	pdb *ppolicyv1.PodDisruptionBudget
	// pods are those that it selects, ended and deleted ones included.
	pods []*pcorev1.Pod
	// scales are by the UID of a pod's controller what that wants; only known where the budget needs them.
	scales map[types.UID]scale
	// shared says that one of the pods is selected by another budget too.
	shared string
	now    time.Time
}

// scale is how many pods somebody wants. A ReplicaSet's is its Deployment's, under the Deployment's UID.
type scale struct {
	owner types.UID
	want  int32
	// problem is why it isn't known; permanent says that only the user can change that.
	problem   string
	permanent bool
}

// count is the outcome of counting.
type count struct {
	expected, desired, healthy, allowed int32
	pending                             map[string]metav1.Time
	// unmanaged are the pods without a controller that the budget can't be measured with.
	unmanaged []string
	// expired are the pods whose eviction was noted and that nobody deleted.
	expired []*pcorev1.Pod
	// recheck is when the first noted eviction runs out; zero: never.
	recheck time.Time
	// problem is why counting failed; nothing but the note of evictions is known then.
	problem   string
	permanent bool
}

// makeCount counts. On failure nothing may be disrupted.
func makeCount(s *scope) count {
	var c count
	c.pending, c.recheck, c.expired = disruption.Pending(s.pdb.Status.DisruptedPods, s.pods, s.now)
	if _, err := disruption.Selector(&s.pdb.Spec); err != nil {
		c.problem, c.permanent = fmt.Sprintf("The selector can't be read: %v.", err), true
		return c
	}
	sum := int32(0)
	if disruption.NeedsScale(&s.pdb.Spec) {
		if sum = s.sum(&c); c.problem != "" {
			return c
		}
	}
	var err error
	c.expected, c.desired, err = disruption.Target(&s.pdb.Spec, int32(len(s.pods)), sum) //nolint:gosec // no namespace has that many pods
	if err != nil {
		c.problem, c.permanent = err.Error(), true
		return c
	}
	c.healthy = disruption.Healthy(s.pods, c.pending)
	c.allowed = disruption.Allowed(c.healthy, c.desired, c.expected)
	return c
}

// sum adds up what the pods' owners want, each once.
func (s *scope) sum(c *count) int32 {
	wants := map[types.UID]int32{}
	for _, pod := range s.pods {
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref == nil {
			c.unmanaged = append(c.unmanaged, pod.Name)
			continue
		}
		found := s.scales[ref.UID]
		if found.problem != "" {
			c.problem, c.permanent = found.problem, found.permanent
			return 0
		}
		wants[found.owner] = found.want
	}
	slices.Sort(c.unmanaged)
	sum := int32(0)
	for _, want := range wants {
		sum += want
	}
	return sum
}

// few lists names, and cuts a long list short.
func few(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}
