// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	firstBackoff = 5 * time.Millisecond
	// lastBackoff is a minute rather than client-go's quarter of an hour: whoever raised a quota is waiting.
	lastBackoff = time.Minute
)

// Backoff is how long a controller waits after failures in a row on one object.
func Backoff() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstBackoff, lastBackoff)
}
