// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"

	"github.com/pinnace-dev/pinnace/controllers/placement"
)

// kubelet plays all nodes of one side. What becomes of a bound pod, its first container's image says:
//
//	app:…     is ready at once
//	slow:…    runs and is ready when the script says so
//	task:…    runs, is ready, and ends when the script says so
//	bad:…     can't be pulled
//	crash:…   restarts for ever; a pod that isn't restarted fails
//	done:…    ends well at once
//	exit-N:…  ends at once with code N
//
// A deleted pod ends at once with code 137, unless its annotation oracle/linger lets it wait for the script.
type kubelet struct {
	side  *side
	queue workqueue.TypedRateLimitingInterface[string]
	wg    sync.WaitGroup
}

const lingerAnnotation = "oracle/linger"

func newKubelet(s *side) *kubelet {
	return &kubelet{side: s, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](10*time.Millisecond, time.Second))}
}

func (k *kubelet) start(ctx context.Context) {
	for range 4 {
		k.wg.Go(func() {
			for {
				key, stopped := k.queue.Get()
				if stopped {
					return
				}
				if err := k.handle(ctx, key); err != nil && ctx.Err() == nil {
					k.queue.AddRateLimited(key)
				} else {
					k.queue.Forget(key)
				}
				k.queue.Done(key)
			}
		})
	}
}

func (k *kubelet) stop() {
	k.queue.ShutDown()
	k.wg.Wait()
}

// look queues a pod when there is something to do.
func (k *kubelet) look(o *unstructured.Unstructured) {
	if node, _, _ := unstructured.NestedString(o.Object, "spec", "nodeName"); node != "" {
		k.queue.Add(o.GetNamespace() + "/" + o.GetName())
	}
}

func (k *kubelet) handle(ctx context.Context, key string) error {
	found, ok, err := k.side.stores["pod"].GetByKey(key)
	if err != nil || !ok {
		return err
	}
	o := asObject(found).DeepCopy()
	pod := asPod(o)
	if pod.DeletionTimestamp != nil {
		if _, lingers := pod.Annotations[lingerAnnotation]; lingers {
			return nil
		}
		return k.end(ctx, o)
	}
	if len(pod.Status.ContainerStatuses) > 0 || isOver(pod) {
		return nil
	}
	begin(pod)
	return k.write(ctx, o, pod)
}

// end ends a deleted pod as a kubelet does: the final phase first, then the object. Pinnace's agent writes that phase only
// when somebody else still holds the pod (docs/adr/0030).
func (k *kubelet) end(ctx context.Context, o *unstructured.Unstructured) error {
	pod := asPod(o)
	held := !k.side.ours
	for _, f := range pod.Finalizers {
		held = held || f != placement.NodeFinalizer
	}
	if held && !isOver(pod) {
		finish(pod, 137)
		if err := k.write(ctx, o, pod); err != nil {
			return err
		}
	}
	pods := k.side.client.Resource(k.side.resource("pod")).Namespace(o.GetNamespace())
	if k.side.ours {
		left := []string{}
		for _, f := range pod.Finalizers {
			if f != placement.NodeFinalizer {
				left = append(left, f)
			}
		}
		if len(left) == len(pod.Finalizers) {
			return nil
		}
		o = o.DeepCopy()
		o.SetFinalizers(left)
		_, err := pods.Update(ctx, o, metav1.UpdateOptions{})
		return ignoreGone(err)
	}
	if pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0 {
		return nil
	}
	uid := o.GetUID()
	return ignoreGone(pods.Delete(ctx, o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &uid}}))
}

// write writes a pod's status under the resource version that was looked at, and leaves the newer one in o.
func (k *kubelet) write(ctx context.Context, o *unstructured.Unstructured, pod *corev1.Pod) error {
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&pod.Status)
	if err != nil {
		return err
	}
	out := o.DeepCopy()
	out.Object["status"] = status
	written, err := k.side.client.Resource(k.side.resource("pod")).Namespace(o.GetNamespace()).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if err == nil {
		o.Object = written.Object
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func asPod(o *unstructured.Unstructured) *corev1.Pod {
	pod := &corev1.Pod{}
	must(runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, pod))
	return pod
}

func isOver(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func now() metav1.Time { return metav1.NewTime(time.Now().Truncate(time.Second)) }

// begin is the first status of a bound pod.
func begin(pod *corev1.Pod) {
	behaviour, _, _ := strings.Cut(pod.Spec.Containers[0].Image, ":")
	started := now()
	pod.Status.StartTime = &started
	pod.Status.ObservedGeneration = pod.Generation
	pod.Status.Phase = corev1.PodRunning
	setConditions(pod, true)
	pod.Status.ContainerStatuses = nil
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: c.Image, Ready: true, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
		})
	}
	code, exits := strings.CutPrefix(behaviour, "exit-")
	switch {
	case behaviour == "slow":
		setReady(pod, false)
	case behaviour == "bad":
		pod.Status.Phase = corev1.PodPending
		stall(pod, "ImagePullBackOff")
	case behaviour == "crash" && pod.Spec.RestartPolicy != corev1.RestartPolicyNever:
		stall(pod, "CrashLoopBackOff")
		pod.Status.ContainerStatuses[0].RestartCount = 3
	case behaviour == "crash":
		finish(pod, 1)
	case behaviour == "done":
		finish(pod, 0)
	case exits:
		n, err := strconv.Atoi(code)
		must(err)
		finish(pod, int32(n))
	}
}

func stall(pod *corev1.Pod, reason string) {
	setReady(pod, false)
	pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "it is made to fail"}}
}

// finish ends all containers with a code, and with them the pod.
func finish(pod *corev1.Pod, code int32) {
	ended := now()
	pod.Status.Phase, pod.Status.ObservedGeneration = corev1.PodSucceeded, pod.Generation
	reason := "Completed"
	if code != 0 {
		pod.Status.Phase, reason = corev1.PodFailed, "Error"
	}
	for i := range pod.Status.ContainerStatuses {
		s := &pod.Status.ContainerStatuses[i]
		begun := ended
		if s.State.Running != nil {
			begun = s.State.Running.StartedAt
		}
		s.Ready, s.Started = false, new(false)
		s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, StartedAt: begun, FinishedAt: ended}}
	}
	setConditions(pod, false)
}

// setReady makes a running pod ready or unready.
func setReady(pod *corev1.Pod, ready bool) {
	for i := range pod.Status.ContainerStatuses {
		pod.Status.ContainerStatuses[i].Ready = ready
		pod.Status.ContainerStatuses[i].Started = new(ready)
	}
	setConditions(pod, ready)
}

// setConditions sets the conditions of a bound pod; those of others stay.
func setConditions(pod *corev1.Pod, ready bool) {
	set := func(kind corev1.PodConditionType, status bool, reason string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now()}
		if !status {
			c.Status, c.Reason = corev1.ConditionFalse, reason
		}
		for i := range pod.Status.Conditions {
			if old := &pod.Status.Conditions[i]; old.Type == kind {
				if old.Status == c.Status {
					c.LastTransitionTime = old.LastTransitionTime
				}
				*old = c
				return
			}
		}
		pod.Status.Conditions = append(pod.Status.Conditions, c)
	}
	reason := "ContainersNotReady"
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		reason = "PodCompleted"
	case corev1.PodFailed:
		reason = "PodFailed"
	}
	set(corev1.PodScheduled, true, "")
	set(corev1.PodInitialized, true, "")
	set(corev1.ContainersReady, ready, reason)
	set(corev1.PodReady, ready, reason)
}
