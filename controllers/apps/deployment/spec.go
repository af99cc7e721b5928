// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"math"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
)

// Upstream's defaults. The schema fills them in; they stand here for objects that were stored before it did.
const (
	defaultDeadline = 600
	defaultHistory  = 10
	defaultFence    = "25%"
)

// settings are a Deployment's spec with percentages resolved and defaults filled in.
type settings struct {
	// replicas is the wanted number of pods.
	replicas int32
	rolling  bool
	// maxSurge is how many pods more than replicas may be there, maxUnavailable how many fewer may be available.
	maxSurge, maxUnavailable int32
	paused                   bool
	// deadline is after how long without progress a rollout counts as failed; 0 means never.
	deadline time.Duration
	// history is how many old revisions are kept; negative means all.
	history int32
}

// readSettings resolves a spec. An error says which field can't be understood.
func readSettings(spec *pappsv1.DeploymentSpec) (settings, error) {
	s := settings{replicas: 1, rolling: true, paused: spec.Paused, deadline: defaultDeadline * time.Second, history: defaultHistory}
	if spec.Replicas != nil {
		s.replicas = *spec.Replicas
	}
	if p := spec.ProgressDeadlineSeconds; p != nil {
		s.deadline = time.Duration(*p) * time.Second
		if *p == math.MaxInt32 {
			s.deadline = 0
		}
	}
	if h := spec.RevisionHistoryLimit; h != nil {
		s.history = *h
		if *h == math.MaxInt32 {
			s.history = -1
		}
	}
	switch spec.Strategy.Type {
	case "", appsv1.RollingUpdateDeploymentStrategyType:
	case appsv1.RecreateDeploymentStrategyType:
		s.rolling = false
		return s, nil
	default:
		return s, fmt.Errorf("spec.strategy.type is %q; it must be RollingUpdate or Recreate", spec.Strategy.Type)
	}
	return s, s.resolveFences(spec.Strategy.RollingUpdate)
}

// resolveFences turns maxSurge and maxUnavailable into numbers of pods: surge rounds up, unavailable rounds down, and when both come
// out as zero, one pod may be unavailable, because otherwise nothing could ever move (upstream's ResolveFenceposts).
func (s *settings) resolveFences(rolling *appsv1.RollingUpdateDeployment) error {
	surge, unavailable := intstr.FromString(defaultFence), intstr.FromString(defaultFence)
	if rolling != nil {
		surge = *intstr.ValueOrDefault(rolling.MaxSurge, surge)
		unavailable = *intstr.ValueOrDefault(rolling.MaxUnavailable, unavailable)
	}
	up, err := intstr.GetScaledValueFromIntOrPercent(&surge, int(s.replicas), true)
	if err != nil {
		return fmt.Errorf("spec.strategy.rollingUpdate.maxSurge must be a number or a percentage: %w", err)
	}
	down, err := intstr.GetScaledValueFromIntOrPercent(&unavailable, int(s.replicas), false)
	if err != nil {
		return fmt.Errorf("spec.strategy.rollingUpdate.maxUnavailable must be a number or a percentage: %w", err)
	}
	if up == 0 && down == 0 {
		down = 1
	}
	s.maxSurge, s.maxUnavailable = int32(up), min(int32(down), s.replicas)
	return nil
}

// most is the highest number of pods that may be there.
func (s *settings) most() int32 { return s.replicas + s.maxSurge }

// least is the lowest number of pods that must be available.
func (s *settings) least() int32 { return s.replicas - s.maxUnavailable }
