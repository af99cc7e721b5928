// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
)

// Upstream's defaults. The schema fills them in; they stand here for objects that were stored before it did.
const (
	defaultHistory  = 10
	defaultDeadline = 600
)

// settings are a StatefulSet's spec with percentages resolved and defaults filled in.
type settings struct {
	// replicas is the wanted number of pods, start the ordinal of the first.
	replicas, start int
	// ordered says that a pod waits for its predecessors (OrderedReady).
	ordered bool
	// rolling says that pods of old revisions are replaced; without it that is left to the user (OnDelete).
	rolling bool
	// updateFrom is the lowest ordinal that gets the newest revision.
	updateFrom int
	// maxUnavailable is how many pods an update may take down.
	maxUnavailable int
	// minReadySeconds is for how long a pod must be ready before it counts as available.
	minReadySeconds int32
	// history is how many old revisions are kept; negative means all.
	history int32
	// deleteScaled and deleteDeleted say that claims go with pods that are scaled away, and with the set.
	deleteScaled, deleteDeleted bool
	// deadline is after how long without progress a rollout counts as failed; 0 means never. It matters with onFailure alone.
	deadline time.Duration
}

// readSettings resolves a spec. An error says which field can't be understood.
func readSettings(spec *pappsv1.StatefulSetSpec) (settings, error) {
	s := settings{
		replicas: 1, ordered: true, rolling: true, maxUnavailable: 1, minReadySeconds: spec.MinReadySeconds,
		history: defaultHistory, deadline: defaultDeadline * time.Second,
	}
	if spec.Replicas != nil {
		s.replicas = int(*spec.Replicas)
	}
	if spec.Ordinals != nil {
		s.start = int(spec.Ordinals.Start)
	}
	if spec.RevisionHistoryLimit != nil {
		s.history = *spec.RevisionHistoryLimit
	}
	if p := spec.ProgressDeadlineSeconds; p != nil {
		s.deadline = time.Duration(*p) * time.Second
		if *p == math.MaxInt32 {
			s.deadline = 0
		}
	}
	if policy := spec.PersistentVolumeClaimRetentionPolicy; policy != nil {
		s.deleteScaled = policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		s.deleteDeleted = policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	switch spec.PodManagementPolicy {
	case "", appsv1.OrderedReadyPodManagement:
	case appsv1.ParallelPodManagement:
		s.ordered = false
	default:
		return s, fmt.Errorf("spec.podManagementPolicy is %q; it must be OrderedReady or Parallel", spec.PodManagementPolicy)
	}
	s.updateFrom = s.start
	switch spec.UpdateStrategy.Type {
	case "", appsv1.RollingUpdateStatefulSetStrategyType:
	case appsv1.OnDeleteStatefulSetStrategyType:
		s.rolling = false
	default:
		return s, fmt.Errorf("spec.updateStrategy.type is %q; it must be RollingUpdate or OnDelete", spec.UpdateStrategy.Type)
	}
	return s, s.readRolling(spec.UpdateStrategy.RollingUpdate)
}

// readRolling reads partition and maxUnavailable. A percentage rounds down, but never to zero, because otherwise nothing could ever
// move (upstream's getStatefulSetMaxUnavailable).
func (s *settings) readRolling(rolling *appsv1.RollingUpdateStatefulSetStrategy) error {
	if rolling == nil {
		return nil
	}
	if rolling.Partition != nil {
		s.updateFrom = s.start + int(*rolling.Partition)
	}
	most, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxUnavailable, intstr.FromInt32(1)), s.replicas, false)
	if err != nil {
		return fmt.Errorf("spec.updateStrategy.rollingUpdate.maxUnavailable must be a number or a percentage: %w", err)
	}
	s.maxUnavailable = max(1, most)
	return nil
}

// end is the first ordinal beyond the wanted ones.
func (s *settings) end() int { return s.start + s.replicas }

// claimNames are the sorted names of the set's claim templates, never nil.
func claimNames(set *pappsv1.StatefulSet) []string {
	names := make([]string, 0, len(set.Spec.VolumeClaimTemplates))
	for i := range set.Spec.VolumeClaimTemplates {
		names = append(names, set.Spec.VolumeClaimTemplates[i].Name)
	}
	slices.Sort(names)
	return names
}
