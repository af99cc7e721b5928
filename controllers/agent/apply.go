// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// Delays between tries of what failed.
const (
	sandboxRetryFirst = time.Second
	sandboxRetryMost  = time.Minute
	configRetryFirst  = time.Second
	configRetryMost   = 10 * time.Second
)

// apply does what the plan says. Failures that concern the user are kept in memory for the status; an error is one of the
// machinery, and is tried again.
func (r *Reconciler) apply(ctx context.Context, rec *record, pod *pcorev1.Pod, seen *observed, p *plan) error {
	for _, step := range p.stop {
		r.stop(ctx, rec, pod, step, seen)
	}
	for _, id := range p.removeContainers {
		if err := rec.node.Runtime.RemoveContainer(ctx, id); err != nil {
			return fmt.Errorf("removing a dead container: %w", err)
		}
	}
	for _, id := range p.stopSandboxes {
		if err := rec.node.Runtime.StopPodSandbox(ctx, id); err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("stopping the sandbox: %w", err)
		}
	}
	for _, id := range p.removeSandboxes {
		if err := rec.node.Runtime.RemovePodSandbox(ctx, id); err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("removing the sandbox: %w", err)
		}
	}
	if p.resize != nil {
		r.resize(ctx, rec, pod, p.resize)
	}
	if p.createSandbox {
		r.createSandbox(ctx, rec, pod, p.attempt)
	}
	for _, step := range p.start {
		if err := r.start(ctx, rec, pod, seen, step); err != nil {
			return err
		}
	}
	return nil
}

// createSandbox makes the sandbox; meanwhile the images are on their way already.
func (r *Reconciler) createSandbox(ctx context.Context, rec *record, pod *pcorev1.Pod, attempt uint32) {
	config, err := r.sandboxConfig(ctx, rec, pod, attempt)
	if err == nil {
		r.prefetch(ctx, rec, pod, config)
		err = r.runSandbox(ctx, rec, pod, config)
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if err == nil {
		rec.mem.sandboxFailed = startFailure{}
		return
	}
	delay := min(max(2*rec.mem.sandboxFailed.delay, sandboxRetryFirst), sandboxRetryMost)
	rec.mem.sandboxFailed = startFailure{
		reason: podstate.ReasonSandboxNotReady, message: "Failed to create pod sandbox: " + message(err),
		retryAt: r.options.Now().Add(delay), delay: delay,
	}
}

func (r *Reconciler) runSandbox(ctx context.Context, rec *record, pod *pcorev1.Pod, config *runtimeapi.PodSandboxConfig) error {
	if rec.node.LogDir != "" {
		if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
			return fmt.Errorf("making the folder of the logs: %w", err)
		}
	}
	if err := rec.takeSlot(ctx); err != nil {
		return err
	}
	if err := rec.node.limit(pod); err != nil {
		return err
	}
	rec.mu.Lock()
	rec.mem.resize.due = false
	rec.mu.Unlock()
	id, err := rec.node.Runtime.RunPodSandbox(ctx, config, runtimeHandler(pod))
	rec.made.sandbox = id
	return err
}

// runtimeHandler is empty, the runtime's default: RuntimeClass is on the list of what has no effect yet.
func runtimeHandler(*pcorev1.Pod) string { return "" }

// sandboxConfig gathers what the pod's sandbox needs and says what it is to be.
func (r *Reconciler) sandboxConfig(ctx context.Context, rec *record, pod *pcorev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	users, err := rec.node.userNamespace(ctx, pod)
	if err != nil {
		return nil, err
	}
	config := makeSandboxConfig(pod, &rec.node.Node, rec.node.hostDNS(), attempt)
	if config.Linux.SecurityContext.SupplementalGroupsPolicy == runtimeapi.SupplementalGroupsPolicy_Strict && !rec.node.Simulated {
		if features, err := rec.node.features(ctx); err != nil || !features.SupplementalGroupsPolicy {
			return nil, errors.Join(err, errors.New("supplementalGroupsPolicy: Strict is not supported by this node's runtime: use Merge"))
		}
	}
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	return config, nil
}

// message is what went wrong without gRPC's frame around it.
func message(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// start makes and starts one container, or remembers why it can't be.
func (r *Reconciler) start(ctx context.Context, rec *record, pod *pcorev1.Pod, seen *observed, step startStep) error {
	if step.replaces != "" {
		if err := rec.node.Runtime.RemoveContainer(ctx, step.replaces); err != nil {
			return fmt.Errorf("removing a container that never started: %w", err)
		}
	}
	sandboxID, attempt, why := seen.sandbox(pod.Spec.HostNetwork)
	if why != "" {
		return nil // It just went; the next round makes another.
	}
	sandbox, err := r.sandboxConfig(ctx, rec, pod, attempt)
	if err != nil {
		return err
	}
	image, ref, ok := r.image(ctx, rec, pod, step.container, sandbox)
	if volumes := r.imageVolumes(ctx, rec, pod, sandbox); !ok || !volumes {
		return nil
	}
	config, err := r.containerConfig(ctx, rec, pod, seen, step, image, ref)
	if err != nil {
		reason := "CreateContainerConfigError"
		var failed *mountError
		if errors.As(err, &failed) {
			reason = defaultWaiting(situation{pod: pod}, step.kind)
		}
		rec.failStart(step.container.Name, reason, message(err), r.options.Now(), configRetryFirst, configRetryMost)
		return nil
	}
	id, err := r.createAndStart(ctx, rec, sandboxID, config, sandbox, image, step)
	if err != nil {
		return nil // Remembered for the status.
	}
	rec.mu.Lock()
	delete(rec.mem.failed, step.container.Name)
	delete(rec.pulled, step.container.Name)
	if step.crash != nil {
		set(&rec.mem.crash, step.container.Name, *step.crash)
	}
	rec.mu.Unlock()
	r.postStart(rec, pod, seen, step.container, id)
	return nil
}

func (r *Reconciler) createAndStart(ctx context.Context, rec *record, sandboxID string, config *runtimeapi.ContainerConfig,
	sandbox *runtimeapi.PodSandboxConfig, image *runtimeapi.Image, step startStep,
) (string, error) {
	if err := rec.takeSlot(ctx); err != nil {
		return "", err
	}
	id, err := rec.node.Runtime.CreateContainer(ctx, sandboxID, config, sandbox)
	if err != nil {
		rec.imageVolumes = nil // An image may have gone; the next try looks again.
		rec.failStart(step.container.Name, "CreateContainerError", message(err)+userAdvice(config, image), r.options.Now(), backoffFirst, backoffMost)
		return "", err
	}
	rec.made.containers = append(rec.made.containers, struct{ id, sandboxID string }{id, sandboxID})
	if err := rec.node.Runtime.StartContainer(ctx, id); err != nil {
		rec.failStart(step.container.Name, "RunContainerError", message(err), r.options.Now(), backoffFirst, backoffMost)
		return "", err
	}
	return id, nil
}

// endOrphan stops what runs of a pod that the API server has no more: what is needed for it is in the labels and
// annotations of its containers.
func (r *Reconciler) endOrphan(ctx context.Context, rec *record, wait *waiter) error {
	if rec.released {
		r.records.drop(rec)
		return nil
	}
	seen, err := rec.node.observe(ctx, rec.uid)
	if err != nil {
		return err
	}
	pod := orphanPod(rec, seen, metav1.NewTime(r.options.Now()))
	_, p, err := r.converge(ctx, rec, pod)
	if err != nil {
		return err
	}
	wait.until(p.wake)
	if !p.gone {
		return nil
	}
	if err := r.cleanUp(ctx, rec, pod); err != nil {
		return err
	}
	r.records.drop(rec)
	return nil
}

// orphanPod is what can be told of a pod from what runs of it.
func orphanPod(rec *record, seen *observed, now metav1.Time) *pcorev1.Pod {
	pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: rec.key.Namespace, Name: rec.key.Name, UID: rec.uid, DeletionTimestamp: &now,
	}}
	always := corev1.ContainerRestartPolicyAlways
	for _, c := range seen.containers {
		if grace, err := time.ParseDuration(c.GetAnnotations()[annotationGrace] + "s"); err == nil {
			seconds := int64(grace / time.Second)
			pod.Spec.TerminationGracePeriodSeconds = &seconds
		}
		if c.kind() == kindSidecar {
			pod.Spec.InitContainers = append([]corev1.Container{{Name: c.name(), RestartPolicy: &always}}, pod.Spec.InitContainers...)
		}
	}
	return pod
}

// cleanUp removes what a pod leaves on the node when nothing of it runs any more.
func (r *Reconciler) cleanUp(ctx context.Context, rec *record, pod *pcorev1.Pod) error {
	r.giveBack(ctx, rec)
	if rec.node.Volumes != nil {
		if err := rec.node.Volumes.Unmount(rec.uid); err != nil {
			return fmt.Errorf("removing the pod's volumes: %w", err)
		}
	}
	if rec.node.LogDir != "" {
		if err := os.RemoveAll(podLogDir(pod, &rec.node.Node)); err != nil {
			return fmt.Errorf("removing the pod's logs: %w", err)
		}
	}
	if rec.node.CgroupRoot != "" {
		if err := cgroup.RemovePod(rec.node.CgroupRoot, string(rec.uid)); err != nil {
			return fmt.Errorf("removing the pod's cgroup: %w", err)
		}
	}
	return nil
}
