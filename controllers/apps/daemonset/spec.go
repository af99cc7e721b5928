// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"errors"
	"fmt"
	"math"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
)

// Upstream's defaults. The schema fills them in; they stand here for objects that were stored before it did.
const (
	defaultUnavailable = 1
	defaultHistory     = 10
	defaultDeadline    = 600
)

// settings are a DaemonSet's spec with defaults filled in.
type settings struct {
	selector labels.Selector
	rolling  bool
	// surge and unavailable are numbers of nodes or percentages of those that should run a pod.
	surge, unavailable intstr.IntOrString
	// surging says whether a node may hold two pods at all.
	surging  bool
	minReady time.Duration
	// deadline is after how long without progress a rollout counts as failed; 0 means never. It matters with onFailure alone.
	deadline time.Duration
	// history is how many old revisions are kept.
	history int32
}

// readSettings resolves a spec. An error says which field can't be understood.
func readSettings(spec *pappsv1.DaemonSetSpec) (settings, error) {
	s := settings{
		unavailable: intstr.FromInt32(defaultUnavailable), minReady: time.Duration(spec.MinReadySeconds) * time.Second, history: defaultHistory,
		deadline: defaultDeadline * time.Second,
	}
	if p := spec.ProgressDeadlineSeconds; p != nil {
		if s.deadline = time.Duration(*p) * time.Second; *p == math.MaxInt32 {
			s.deadline = 0
		}
	}
	if h := spec.RevisionHistoryLimit; h != nil {
		s.history = *h
	}
	var err error
	if s.selector, err = metav1.LabelSelectorAsSelector(spec.Selector); err != nil {
		return s, fmt.Errorf("spec.selector can't be read: %w", err)
	}
	if s.selector.Empty() {
		return s, errors.New("spec.selector is empty; name at least one label of the template")
	}
	switch spec.UpdateStrategy.Type {
	case "", appsv1.RollingUpdateDaemonSetStrategyType:
		s.rolling = true
	case appsv1.OnDeleteDaemonSetStrategyType:
		return s, nil
	default:
		return s, fmt.Errorf("spec.updateStrategy.type is %q; it must be RollingUpdate or OnDelete", spec.UpdateStrategy.Type)
	}
	if r := spec.UpdateStrategy.RollingUpdate; r != nil {
		s.surge = *intstr.ValueOrDefault(r.MaxSurge, s.surge)
		s.unavailable = *intstr.ValueOrDefault(r.MaxUnavailable, s.unavailable)
	}
	one, _, err := s.bounds(1)
	s.surging = one > 0
	return s, err
}

// bounds resolves the percentages for that many nodes, both rounded up as upstream has it. When nothing could ever move, one node may be
// unavailable.
func (s *settings) bounds(desired int) (surge, unavailable int, err error) {
	if surge, err = intstr.GetScaledValueFromIntOrPercent(&s.surge, desired, true); err != nil {
		return 0, 0, fmt.Errorf("spec.updateStrategy.rollingUpdate.maxSurge must be a number or a percentage: %w", err)
	}
	if unavailable, err = intstr.GetScaledValueFromIntOrPercent(&s.unavailable, desired, true); err != nil {
		return 0, 0, fmt.Errorf("spec.updateStrategy.rollingUpdate.maxUnavailable must be a number or a percentage: %w", err)
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable, nil
}
