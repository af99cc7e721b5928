// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ByAnnotation is the usual behaviour: init containers end at once with 0, main containers as their pod's annotations
// say, all others run on.
func ByAnnotation(c *runtimeapi.ContainerConfig, s *runtimeapi.PodSandboxConfig) (time.Duration, int32, bool) {
	switch c.GetAnnotations()[AnnotationKind] {
	case "init":
		return 0, 0, true
	case "sidecar", "ephemeral":
		return 0, 0, false
	}
	text, ok := s.GetAnnotations()[AnnotationExitAfter]
	if !ok {
		return 0, 0, false
	}
	after, err := time.ParseDuration(text)
	if err != nil {
		return 0, 0, false
	}
	code, _ := strconv.ParseInt(s.GetAnnotations()[AnnotationExitCode], 10, 32)
	return after, int32(code), true
}

// CreateContainer makes a container that isn't started yet.
func (r *Runtime) CreateContainer(_ context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts["CreateContainer"]++
	s := r.sandboxes[sandboxID]
	if s == nil {
		return "", status.Errorf(codes.NotFound, "sandbox %s not found", sandboxID)
	}
	if !s.ready {
		return "", status.Errorf(codes.Unknown, "sandbox %s is not running", sandboxID)
	}
	image := config.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = config.GetImage().GetImage()
	}
	if fault := r.images[image]; fault.absent {
		return "", status.Errorf(codes.NotFound, "image %q not found", image)
	} else if fault.createError != "" {
		return "", status.Error(codes.Unknown, fault.createError)
	}
	for _, c := range r.containersOf(s) {
		if c.meta.GetName() == config.GetMetadata().GetName() && c.meta.GetAttempt() == config.GetMetadata().GetAttempt() {
			return "", status.Errorf(codes.FailedPrecondition, "the container name %s attempt %d is reserved for %s", c.meta.GetName(), c.meta.GetAttempt(), c.id)
		}
	}
	c := &container{
		id: r.id("c"), sandboxID: sandboxID, meta: config.GetMetadata(), image: image,
		labels: config.GetLabels(), notes: config.GetAnnotations(), created: r.options.Now().UnixNano(),
		state: runtimeapi.ContainerState_CONTAINER_CREATED, resources: config.GetLinux().GetResources(),
	}
	c.after, c.endCode, c.ends = r.options.Behaviour(config, sandbox)
	r.containers[c.id] = c
	p := r.pod(c.labels)
	p.containers = append(p.containers, c.id)
	r.emit(c.id, c.labels, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return c.id, nil
}

// StartContainer starts a created container.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	if err := pause(ctx, r.options.StartLatency); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts["StartContainer"]++
	c := r.containers[id]
	if c == nil {
		return status.Errorf(codes.NotFound, "container %s not found", id)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_CREATED {
		return status.Errorf(codes.FailedPrecondition, "container %s is not in created state", id)
	}
	if fault := r.images[c.image]; fault.startError != "" {
		now := r.options.Now().UnixNano()
		c.state, c.exitCode, c.reason, c.message, c.stopped = runtimeapi.ContainerState_CONTAINER_EXITED, 128, "StartError", fault.startError, now
		return status.Error(codes.Unknown, fault.startError)
	}
	c.state, c.started = runtimeapi.ContainerState_CONTAINER_RUNNING, r.options.Now().UnixNano()
	r.emit(c.id, c.labels, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	switch {
	case c.ends && c.after <= 0:
		r.end(c, c.endCode, "")
	case c.ends:
		c.timer = time.AfterFunc(c.after, func() { r.Exit(id, c.endCode) })
	}
	return nil
}

// Exit ends a running container with the code, as if its process had; false when no such container runs.
func (r *Runtime) Exit(id string, code int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return false
	}
	r.end(c, code, "")
	return true
}

// StopContainer ends a container with code 0, as a process does that minds its stop signal; without a timeout it is killed.
func (r *Runtime) StopContainer(_ context.Context, id string, timeout time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts["StopContainer"]++
	code := int32(0)
	if timeout <= 0 {
		code = 137
	}
	if c := r.containers[id]; c != nil {
		r.end(c, code, "")
	}
	return nil
}

// RemoveContainer removes a container.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		r.forget(c)
		r.dropIfEmpty(c.labels)
	}
	return nil
}

// UpdateContainerResources takes over what isn't zero.
func (r *Runtime) UpdateContainerResources(_ context.Context, id string, resources *runtimeapi.LinuxContainerResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts["UpdateContainerResources"]++
	c := r.containers[id]
	if c == nil {
		return status.Errorf(codes.NotFound, "container %s not found", id)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return status.Errorf(codes.FailedPrecondition, "container %s is not running", id)
	}
	if fault := r.images[c.image]; fault.updateError != "" {
		return status.Error(codes.Unknown, fault.updateError)
	}
	merged := &runtimeapi.LinuxContainerResources{}
	if c.resources != nil {
		merged.CpuPeriod, merged.CpuQuota, merged.CpuShares = c.resources.CpuPeriod, c.resources.CpuQuota, c.resources.CpuShares
		merged.MemoryLimitInBytes, merged.OomScoreAdj = c.resources.MemoryLimitInBytes, c.resources.OomScoreAdj
	}
	change := func(to *int64, from int64) {
		if from != 0 {
			*to = from
		}
	}
	change(&merged.CpuPeriod, resources.GetCpuPeriod())
	change(&merged.CpuQuota, resources.GetCpuQuota())
	change(&merged.CpuShares, resources.GetCpuShares())
	change(&merged.MemoryLimitInBytes, resources.GetMemoryLimitInBytes())
	change(&merged.OomScoreAdj, resources.GetOomScoreAdj())
	c.resources = merged
	return nil
}

// ContainerStatus returns one container.
func (r *Runtime) ContainerStatus(_ context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "container %s not found", id)
	}
	return &runtimeapi.ContainerStatus{
		Id: c.id, Metadata: c.meta, State: c.state, CreatedAt: c.created, StartedAt: c.started, FinishedAt: c.stopped, ExitCode: c.exitCode,
		Image: &runtimeapi.ImageSpec{Image: c.image}, ImageRef: imageID(c.image), ImageId: imageID(c.image),
		Reason: c.reason, Message: c.message, Labels: c.labels, Annotations: c.notes,
		Resources: &runtimeapi.ContainerResources{Linux: c.resources},
	}, nil
}

// ListContainers returns the containers that match.
func (r *Runtime) ListContainers(_ context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.Container
	visit := func(c *container) {
		if filter.GetId() != "" && filter.GetId() != c.id || filter.GetPodSandboxId() != "" && filter.GetPodSandboxId() != c.sandboxID ||
			filter.GetState() != nil && filter.GetState().State != c.state || !contains(c.labels, filter.GetLabelSelector()) {
			return
		}
		out = append(out, &runtimeapi.Container{
			Id: c.id, PodSandboxId: c.sandboxID, Metadata: c.meta, Image: &runtimeapi.ImageSpec{Image: c.image}, ImageRef: imageID(c.image),
			State: c.state, CreatedAt: c.created, Labels: c.labels, Annotations: c.notes,
		})
	}
	if uid := filter.GetLabelSelector()[LabelUID]; uid != "" {
		if p := r.byUID[uid]; p != nil {
			for _, id := range p.containers {
				visit(r.containers[id])
			}
		}
		return out, nil
	}
	for _, c := range r.containers {
		visit(c)
	}
	return out, nil
}

// ExecSync answers as told by OnExec, else exit code 0 with no output.
func (r *Runtime) ExecSync(_ context.Context, id string, command []string, _ time.Duration) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	c, exec := r.containers[id], r.exec
	r.mu.Unlock()
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.NotFound, "container %s is not running", id)
	}
	if exec != nil {
		return exec(id, command)
	}
	return &runtimeapi.ExecSyncResponse{}, nil
}

// OnExec sets what ExecSync answers.
func (r *Runtime) OnExec(f ExecFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exec = f
}

// Count tells how often a method of the port was called: RunPodSandbox, CreateContainer, StartContainer,
// StopContainer, PullImage.
func (r *Runtime) Count(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[method]
}

func (r *Runtime) containersOf(s *sandbox) []*container {
	var out []*container
	if p := r.byUID[s.labels[LabelUID]]; p != nil {
		for _, id := range p.containers {
			if c := r.containers[id]; c.sandboxID == s.id {
				out = append(out, c)
			}
		}
	}
	return out
}

func (r *Runtime) end(c *container, code int32, reason string) {
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	if reason == "" {
		if reason = "Completed"; code != 0 {
			reason = "Error"
		}
	}
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.state, c.exitCode, c.reason, c.stopped = runtimeapi.ContainerState_CONTAINER_EXITED, code, reason, r.options.Now().UnixNano()
	r.emit(c.id, c.labels, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

func (r *Runtime) forget(c *container) {
	r.end(c, 137, "Error")
	delete(r.containers, c.id)
	p := r.pod(c.labels)
	p.containers = without(p.containers, c.id)
}
