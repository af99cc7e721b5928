// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// runKubelets stands for the kubelets of all native nodes, in one process. It does the least that a kubelet could do: one
// status write for a pod that starts, in the cheapest way that there is (protobuf, PUT with the known resource version), one
// deletion for a pod that ends, and a lease every ten seconds for each node.
//
// With "full" it writes what a kubelet writes for such a pod: a status while the containers are made and one when they run, both as
// patches, the events Pulled, Created and Started, and at the end the event Killing and a last status.
func runKubelets(args []string) error {
	if len(args) < 1 {
		return errors.New("kubelets needs a kubeconfig")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", args[0])
	if err != nil {
		return err
	}
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	k := &kubelets{client: c, full: slices.Contains(args[1:], "full"), queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())}
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithTransform(slim))
	informer := factory.Core().V1().Pods().Informer()
	k.pods = informer.GetStore()
	enqueue := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok && (pod.DeletionTimestamp != nil || pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodPending) {
			k.queue.Add(pod.Namespace + "/" + pod.Name)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	for range 32 {
		go k.work(ctx)
	}
	err = k.renewLeases(ctx)
	k.queue.ShutDown()
	return err
}

// slim drops what a kubelet doesn't read.
func slim(object any) (any, error) {
	if pod, ok := object.(*corev1.Pod); ok {
		pod.ManagedFields = nil
	}
	return object, nil
}

type kubelets struct {
	client kubernetes.Interface
	full   bool
	pods   cache.Store
	// told has the UIDs of the pods whose start was told, and of those whose end was.
	told  sync.Map
	queue workqueue.TypedRateLimitingInterface[string]
	ips   atomic.Uint32
}

func (k *kubelets) work(ctx context.Context) {
	for {
		key, shutdown := k.queue.Get()
		if shutdown {
			return
		}
		if err := k.look(ctx, key); err != nil {
			k.queue.AddRateLimited(key)
		} else {
			k.queue.Forget(key)
		}
		k.queue.Done(key)
	}
}

func (k *kubelets) look(ctx context.Context, key string) error {
	object, there, err := k.pods.GetByKey(key)
	pod, ok := object.(*corev1.Pod)
	if err != nil || !there || !ok {
		return err
	}
	pods := k.client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		if err := k.once("end "+string(pod.UID), func() error { return k.tellEnd(ctx, pod) }); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		now := int64(0)
		err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	}
	if pod.Status.Phase != corev1.PodPending {
		return nil
	}
	if k.full {
		return k.once(string(pod.UID), func() error { return k.tellStart(ctx, pod) })
	}
	started := *pod
	started.Status = k.running(pod)
	_, err = pods.UpdateStatus(ctx, &started, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the watch brings what is new
	}
	return err
}

// once does what only a full kubelet tells, unless it was told before: the cache may be behind.
func (k *kubelets) once(what string, do func() error) error {
	if _, told := k.told.LoadOrStore(what, true); told || !k.full {
		return nil
	}
	err := do()
	if err != nil {
		k.told.Delete(what)
	}
	return err
}

// tellStart writes what a kubelet writes while a pod starts.
func (k *kubelets) tellStart(ctx context.Context, pod *corev1.Pod) error {
	running := k.running(pod)
	making := *running.DeepCopy()
	making.Phase, making.PodIP, making.PodIPs = corev1.PodPending, "", nil
	for i := range making.Conditions {
		if making.Conditions[i].Type != corev1.PodInitialized && making.Conditions[i].Type != corev1.PodScheduled {
			making.Conditions[i].Status, making.Conditions[i].Reason = corev1.ConditionFalse, "ContainersNotReady"
		}
	}
	for i := range making.ContainerStatuses {
		c := &making.ContainerStatuses[i]
		c.Ready, c.Started, c.ContainerID, c.ImageID = false, nil, "", ""
		c.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
	}
	if err := k.patch(ctx, pod, making); err != nil {
		return client.IgnoreNotFound(err)
	}
	for _, reason := range []string{"Pulled", "Created", "Started"} {
		if err := k.event(ctx, pod, reason); err != nil {
			return err
		}
	}
	return client.IgnoreNotFound(k.patch(ctx, pod, running))
}

// tellEnd writes what a kubelet writes before a pod goes.
func (k *kubelets) tellEnd(ctx context.Context, pod *corev1.Pod) error {
	if err := k.event(ctx, pod, "Killing"); err != nil {
		return err
	}
	ended := *pod.Status.DeepCopy()
	for i := range ended.ContainerStatuses {
		c := &ended.ContainerStatuses[i]
		c.Ready = false
		c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: metav1.Now(), ContainerID: c.ContainerID}}
	}
	return k.patch(ctx, pod, ended)
}

func (k *kubelets) patch(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}

func (k *kubelets) event(ctx context.Context, pod *corev1.Pod, reason string) error {
	now := metav1.Now()
	_, err := k.client.CoreV1().Events(pod.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: pod.Name + "."},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Reason:         reason, Message: reason + " container " + pod.Spec.Containers[0].Name, Type: corev1.EventTypeNormal, Count: 1,
		Source: corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName}, FirstTimestamp: now, LastTimestamp: now,
	}, metav1.CreateOptions{})
	return err
}

// running is the status of a pod that has just started well.
func (k *kubelets) running(pod *corev1.Pod) corev1.PodStatus {
	now, yes := metav1.Now(), true
	n := k.ips.Add(1)
	ip := fmt.Sprintf("10.%d.%d.%d", 128+n>>16&3, n>>8&255, n&255)
	status := *pod.Status.DeepCopy()
	status.Phase, status.StartTime = corev1.PodRunning, &now
	status.HostIP, status.HostIPs = "192.0.2.1", []corev1.HostIP{{IP: "192.0.2.1"}}
	status.PodIP, status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for i := range pod.Spec.Containers {
		container := &pod.Spec.Containers[i]
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, ImageID: container.Image, ContainerID: "fake://" + string(pod.UID),
			Ready: true, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return status
}

// renewLeases keeps the nodes alive until the context ends.
func (k *kubelets) renewLeases(ctx context.Context) error {
	nodes, err := k.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	leases := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	seconds := int32(40)
	held := make([]*coordinationv1.Lease, len(nodes.Items))
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		for i := range nodes.Items {
			now := metav1.NowMicro()
			var err error
			if held[i] == nil {
				held[i], err = leases.Create(ctx, &coordinationv1.Lease{
					ObjectMeta: metav1.ObjectMeta{Name: nodes.Items[i].Name},
					Spec:       coordinationv1.LeaseSpec{HolderIdentity: &nodes.Items[i].Name, LeaseDurationSeconds: &seconds, RenewTime: &now},
				}, metav1.CreateOptions{})
			} else {
				held[i].Spec.RenewTime = &now
				held[i], err = leases.Update(ctx, held[i], metav1.UpdateOptions{})
			}
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("renewing the lease of %s: %w", nodes.Items[i].Name, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
