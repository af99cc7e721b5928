// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"maps"
	"math"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations that a Deployment keeps on its ReplicaSets. The names are upstream's
// (k8s.io/kubernetes pkg/controller/deployment/util), because tools read them.
const (
	// Annotation numbers a revision; the Deployment carries the number of its newest one.
	Annotation = "deployment.kubernetes.io/revision"
	// HistoryAnnotation lists the numbers that a ReplicaSet had before a rollback made it the newest again.
	HistoryAnnotation = "deployment.kubernetes.io/revision-history"
	// DesiredAnnotation is the Deployment's size when the ReplicaSet was last sized: a different size means that the
	// Deployment was scaled, not rolled out.
	DesiredAnnotation = "deployment.kubernetes.io/desired-replicas"
	// MaxAnnotation is the Deployment's size with its surge when the ReplicaSet was last sized, the base of proportional scaling.
	MaxAnnotation = "deployment.kubernetes.io/max-replicas"
	// RollbackAnnotation on a Deployment asks for a rollback to that revision, 0 for the last one.
	RollbackAnnotation = appsv1.DeprecatedRollbackTo
)

// maxHistory bounds HistoryAnnotation, in characters.
const maxHistory = 2000

// Of returns the revision number of an object: 0 when it has none or one that isn't a number.
func Of(obj metav1.Object) int64 {
	n, err := strconv.ParseInt(obj.GetAnnotations()[Annotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Max returns the highest revision number of the objects; 0 when there is none.
func Max[T metav1.Object](objs []T) int64 {
	var highest int64
	for _, o := range objs {
		highest = max(highest, Of(o))
	}
	return highest
}

// Last returns the second highest revision number of the objects, the one that an undo goes back to; 0 when there is none.
func Last[T metav1.Object](objs []T) int64 {
	var first, second int64
	for _, o := range objs {
		switch n := Of(o); {
		case n >= first:
			first, second = n, first
		case n > second:
			second = n
		}
	}
	return second
}

// IsOwn says whether an annotation is one of the bookkeeping of revisions, which is never copied between a Deployment
// and its ReplicaSets.
func IsOwn(key string) bool {
	switch key {
	case corev1.LastAppliedConfigAnnotation, Annotation, HistoryAnnotation, DesiredAnnotation, MaxAnnotation, RollbackAnnotation:
		return true
	}
	return false
}

// Annotate returns the annotations that a ReplicaSet of the newest revision should have: its own, with the Deployment's
// laid over them, and a revision number of at least newest. A number that rises is remembered in HistoryAnnotation.
func Annotate(own, deployment map[string]string, newest int64) map[string]string {
	out := maps.Clone(own)
	if out == nil {
		out = map[string]string{}
	}
	for k, v := range deployment {
		if !IsOwn(k) {
			out[k] = v
		}
	}
	old, had := out[Annotation]
	number, err := strconv.ParseInt(old, 10, 64)
	if err != nil && had && old != "" {
		return out // somebody wrote something else there; upstream leaves it, too
	}
	if number >= newest {
		return out
	}
	out[Annotation] = strconv.FormatInt(newest, 10)
	if had {
		if history, ok := appendHistory(out[HistoryAnnotation], old); ok {
			out[HistoryAnnotation] = history
		}
	}
	return out
}

// appendHistory adds a number to a history and drops the oldest ones while it is too long.
func appendHistory(history, number string) (string, bool) {
	if history == "" {
		return number, true
	}
	parts := append(strings.Split(history, ","), number)
	for len(parts) > 1 && len(strings.Join(parts, ",")) > maxHistory {
		parts = parts[1:]
	}
	joined := strings.Join(parts, ",")
	return joined, len(joined) <= maxHistory
}

// Count reads one of the size annotations, and whether it holds a count.
func Count(obj metav1.Object, key string) (int32, bool) {
	n, err := strconv.ParseUint(obj.GetAnnotations()[key], 10, 32)
	if err != nil || n > math.MaxInt32 {
		return 0, false
	}
	return int32(n), true
}

// WithSize returns the annotations with the two size annotations set.
func WithSize(own map[string]string, desired, most int32) map[string]string {
	out := maps.Clone(own)
	if out == nil {
		out = map[string]string{}
	}
	out[DesiredAnnotation] = strconv.FormatInt(int64(desired), 10)
	out[MaxAnnotation] = strconv.FormatInt(int64(most), 10)
	return out
}
