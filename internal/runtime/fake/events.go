// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Events sends what happens from now on, until the context ends. One listener at a time gets them.
func (r *Runtime) Events(ctx context.Context, to chan<- *runtimeapi.ContainerEventResponse) error {
	if r.options.WithoutEvents {
		return status.Error(codes.Unimplemented, "GetContainerEvents is not implemented")
	}
	r.mu.Lock()
	r.listeners = map[int]chan<- *runtimeapi.ContainerEventResponse{0: to}
	r.backlog = nil
	r.mu.Unlock()
	for {
		r.mu.Lock()
		batch := r.backlog
		r.backlog = nil
		r.mu.Unlock()
		for _, event := range batch {
			select {
			case to <- event:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.mu.Lock()
			r.listeners, r.backlog = nil, nil
			r.mu.Unlock()
			return ctx.Err()
		}
	}
}

// emit queues an event for the listener; without one nothing is kept. The lock is held.
func (r *Runtime) emit(id string, labels map[string]string, kind runtimeapi.ContainerEventType) {
	if r.stopped != nil && kind == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
		r.stopped(labels)
	}
	if len(r.listeners) == 0 {
		return
	}
	r.backlog = append(r.backlog, &runtimeapi.ContainerEventResponse{
		ContainerId: id, ContainerEventType: kind, CreatedAt: r.options.Now().UnixNano(),
		PodSandboxStatus: &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{
			Uid: labels[LabelUID], Name: labels["io.kubernetes.pod.name"], Namespace: labels["io.kubernetes.pod.namespace"],
		}, Labels: labels},
	})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// addresses hands out the addresses of a prefix from its third on (the second is the bridge's), the freed ones last.
type addresses struct {
	prefix netip.Prefix
	last   netip.Addr
	free   []netip.Addr
}

func (a *addresses) take() (netip.Addr, bool) {
	next := a.last
	if !next.IsValid() {
		next = a.prefix.Addr().Next()
	}
	if next = next.Next(); a.prefix.Contains(next) && a.prefix.Contains(next.Next()) {
		a.last = next
		return next, true
	}
	if len(a.free) == 0 {
		return netip.Addr{}, false
	}
	next, a.free = a.free[0], a.free[1:]
	return next, true
}

func (a *addresses) give(ip netip.Addr) {
	if ip.IsValid() && a.prefix.Contains(ip) {
		a.free = append(a.free, ip)
	}
}

// OnStopped calls f with the pod's labels for each sandbox or container that has ended from now on; it must return at once.
func (r *Runtime) OnStopped(f func(labels map[string]string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = f
}
