// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"errors"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/placement"
)

// promiseFor is how long room is held for a pod whose creation is over, or whose outcome is unknown, while no watch shows it. It only matters
// when the creation failed without a word, or the pod came and went while the watch was being restarted.
const promiseFor = 30 * time.Second

// promise is room that is held for a pod which the watch hasn't shown yet. It counts in the cluster under a UID of its own.
type promise struct {
	held types.UID
	// pod is the created pod's UID, once that is known.
	pod types.UID
	// expiry takes the promise back; nil while the creation is under way.
	expiry *time.Timer
}

var _ kube.Placer = (*Reconciler)(nil)

// Promise puts a pod that is about to be created on a node, if it is this loop's to place, has a node that fits, and passes by no pod
// that waits and comes first. It sets nodeName, the finalizer and the requests that the API server would set; room
// is held until the watch shows the pod, or Settle says that there is none.
func (r *Reconciler) Promise(pod *pcorev1.Pod) bool {
	if !promisable(pod) {
		return false
	}
	key := client.ObjectKeyFromObject(pod)
	completeRequests(&pod.Spec.PodSpec)
	request := placement.NewRequest(pod)
	request.UID = types.UID("promised:" + key.String())

	r.mu.Lock()
	defer r.mu.Unlock()
	// Before every bound pod is counted, nodes would be filled twice. Two creations of one name can't both succeed.
	if !r.counted || r.promises[key] != nil || r.queue.before(pod) {
		return false
	}
	d := r.cluster.Place(request)
	if d.Node == "" {
		return false // the loop says why, once the pod is there
	}
	r.cluster.Assume(request, d.Node)
	r.promises[key] = &promise{held: request.UID}
	pod.Spec.NodeName = d.Node
	if !slices.Contains(pod.Finalizers, NodeFinalizer) {
		pod.Finalizers = append(slices.Clone(pod.Finalizers), NodeFinalizer)
	}
	return true
}

// Settle takes the outcome of a creation in. Room goes back at once when the API server refused; when nobody knows, it is held
// until the watch shows the pod, or for a while.
func (r *Reconciler) Settle(pod *pcorev1.Pod, err error) {
	key := client.ObjectKeyFromObject(pod)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.promises[key]
	if p == nil {
		return // the watch was faster
	}
	if refused(err) {
		r.release(key)
		r.rouse()
		return
	}
	if err == nil {
		p.pod = pod.UID
	}
	p.expiry = time.AfterFunc(promiseFor, func() { r.expire(key, p) })
}

// expire takes a promise back that no watch has ended.
func (r *Reconciler) expire(key types.NamespacedName, p *promise) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.promises[key] == p {
		r.release(key)
		r.rouse()
	}
}

// refused says whether the API server certainly made no object.
func refused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusRequestTimeout
}

// release takes a promise back. The caller holds mu.
func (r *Reconciler) release(key types.NamespacedName) {
	p := r.promises[key]
	if p.expiry != nil {
		p.expiry.Stop()
	}
	delete(r.promises, key)
	r.cluster.Forget(p.held)
}

// kept ends the promise to a pod that the watch shows, which counts by itself from now on. Before the creation is settled, a pod that
// was never seen on a node is the promised one; older pods of that name were. The caller holds mu.
func (r *Reconciler) kept(pod *pcorev1.Pod) {
	key := client.ObjectKeyFromObject(pod)
	p := r.promises[key]
	if p == nil {
		return
	}
	_, seen := r.cluster.NodeOf(pod.UID)
	if p.pod == pod.UID || (p.pod == "" && !seen) {
		r.release(key)
	}
}

// broken ends the promise to a pod that is gone or has ended. The caller holds mu.
func (r *Reconciler) broken(pod *pcorev1.Pod) {
	key := client.ObjectKeyFromObject(pod)
	if p := r.promises[key]; p != nil && p.pod == pod.UID {
		r.release(key)
	}
}

// promisable says whether a pod's node can be chosen from what its maker knows. What the API server might still change, so that another node
// would be right, is placed when it is there.
func promisable(pod *pcorev1.Pod) bool {
	spec := &pod.Spec
	switch {
	case pod.Name == "", spec.NodeName != "", len(spec.SchedulingGates) > 0:
		return false
	case spec.SchedulerName != "" && spec.SchedulerName != defaultName:
		return false
	case spec.HostNetwork: // its ports become ports of the node
		return false
	case spec.Priority == nil && spec.PriorityClassName != "":
		return false
	}
	return true
}

// completeRequests makes a limit without a request the request, too, as the API server does (config/policy/defaults.yaml).
func completeRequests(spec *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			for name, amount := range list[i].Resources.Limits {
				if _, ok := list[i].Resources.Requests[name]; ok {
					continue
				}
				if list[i].Resources.Requests == nil {
					list[i].Resources.Requests = corev1.ResourceList{}
				}
				list[i].Resources.Requests[name] = amount.DeepCopy()
			}
		}
	}
}
