// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// NodeFinalizer keeps a bound pod until its node's agent has ended its containers. Custom resources have no deletion grace
// period, so this is what makes a graceful end possible. Unbound pods don't have it and vanish at once.
const NodeFinalizer = "pinnace.dev/node"

// action is what a job writes.
type action int

const (
	// bind puts the pod on a node.
	bind action = iota
	// claim adds the finalizer to a pod that the user bound by hand.
	claim
	// explain says in the pod's condition why it waits.
	explain
)

// job is one decided write.
type job struct {
	head *head
	// pod is the state that was decided on; the write is refused if the pod has changed since.
	pod    *pcorev1.Pod
	what   action
	node   string
	status pcorev1.PodStatus
}

// write makes writes until ctx ends.
func (r *Reconciler) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-r.jobs:
			r.finish(j, r.perform(ctx, j))
		}
	}
}

// perform makes one write.
func (r *Reconciler) perform(ctx context.Context, j job) error {
	if j.what == explain {
		pod := j.pod.DeepCopy()
		pod.Status = j.status
		return r.client.Status().Update(ctx, pod)
	}
	body, err := bindingPatch(j.pod, j.node)
	if err != nil {
		return err
	}
	// Only the metadata of the answer is asked for: the watch brings the pod anyway.
	target := &metav1.PartialObjectMetadata{}
	target.SetGroupVersionKind(pcorev1.GroupVersion.WithKind("Pod"))
	target.Namespace, target.Name = j.pod.Namespace, j.pod.Name
	return r.client.Patch(ctx, target, client.RawPatch(types.JSONPatchType, body))
}

// operation is one step of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// bindingPatch is the one write that puts a pod on a node: the node, the finalizer, and one empty entry as managedFields, which makes
// the API server drop what it tracked. The resource version makes it fail with a conflict if the pod has changed. An
// empty node only adds the finalizer. docs/adr/0052 says why it is a JSON patch.
func bindingPatch(pod *pcorev1.Pod, node string) ([]byte, error) {
	finalizers := slices.Clone(pod.Finalizers)
	if !slices.Contains(finalizers, NodeFinalizer) {
		finalizers = append(finalizers, NodeFinalizer)
	}
	patch := []operation{
		{"replace", "/metadata/resourceVersion", pod.ResourceVersion},
		{"add", "/metadata/finalizers", finalizers},
		{"add", "/metadata/managedFields", []metav1.ManagedFieldsEntry{{}}},
	}
	if node != "" {
		patch = append(patch, operation{"add", "/spec/nodeName", node})
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("writing the binding of pod %s as JSON: %w", pod.Name, err)
	}
	return body, nil
}

// finish takes the result of a write in. A binding that failed frees its room again; every failure but the pod's end is repeated.
func (r *Reconciler) finish(j job, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		j.head.failures = 0
		return // the watch brings the bound pod, and takes it out of the queue
	}
	if j.what == bind {
		r.cluster.Forget(j.head.request.UID)
		r.rouse()
	}
	if j.what == explain {
		j.head.said = ""
	}
	if apierrors.IsNotFound(err) {
		return // the watch brings the pod's end
	}
	j.head.failures++
	delay := lastRetry
	if shift := j.head.failures - 1; shift < 8 {
		delay = min(lastRetry, firstRetry<<shift)
	}
	if !apierrors.IsConflict(err) {
		r.log.Error(err, "Failed to write a pod", "pod", klog.KObj(j.pod), "retryAfter", delay.String())
	}
	time.AfterFunc(delay, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.queue.retry(j.head) {
			r.nudge()
		}
	})
}
