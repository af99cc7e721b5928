// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// observed is what the runtime holds of one pod.
type observed struct {
	// sandboxes and containers, the newest first.
	sandboxes  []*runtimeapi.PodSandboxStatus
	containers []*container
}

// made is what one step has made in the runtime: all that differs from what was observed before it, when the step did nothing else.
type made struct {
	sandbox    string
	containers []struct{ id, sandboxID string }
}

// container is one container in the runtime.
type container struct {
	*runtimeapi.ContainerStatus
	sandboxID string
}

func (c *container) name() string { return c.GetMetadata().GetName() }

func (c *container) kind() string { return c.GetAnnotations()[annotationKind] }

func (c *container) restartCount() int32 {
	if n, err := strconv.ParseInt(c.GetAnnotations()[annotationRestartCount], 10, 32); err == nil {
		return int32(n)
	}
	return int32(c.GetMetadata().GetAttempt())
}

func (c *container) running() bool {
	return c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
}

func (c *container) exited() bool {
	return c != nil && c.State == runtimeapi.ContainerState_CONTAINER_EXITED
}

// mayRun tells whether a process may be there: a container in an unknown state is stopped before it is replaced.
func (c *container) mayRun() bool {
	return c.running() || c != nil && c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func (c *container) finished() time.Time { return time.Unix(0, c.FinishedAt) }

// sort puts the newest first, the order that all readers of observed rely on.
func (o *observed) sort() {
	slices.SortStableFunc(o.sandboxes, func(a, b *runtimeapi.PodSandboxStatus) int {
		return cmp.Or(cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt()), cmp.Compare(b.CreatedAt, a.CreatedAt))
	})
	slices.SortStableFunc(o.containers, func(a, b *container) int {
		return cmp.Or(cmp.Compare(b.restartCount(), a.restartCount()), cmp.Compare(b.CreatedAt, a.CreatedAt))
	})
}

// latest returns the newest container of that name, in any sandbox.
func (o *observed) latest(name string) *container {
	for _, c := range o.containers {
		if c.name() == name {
			return c
		}
	}
	return nil
}

// before returns the newest container of that name that is older than the given one.
func (o *observed) before(newest *container) *container {
	for i, c := range o.containers {
		if c != newest {
			continue
		}
		for _, older := range o.containers[i+1:] {
			if older.name() == newest.name() {
				return older
			}
		}
	}
	return nil
}

// latestIn returns the newest container of that name in that sandbox.
func (o *observed) latestIn(sandboxID, name string) *container {
	for _, c := range o.containers {
		if c.name() == name && c.sandboxID == sandboxID {
			return c
		}
	}
	return nil
}

// sandbox judges the newest sandbox: its ID where it is good for containers, else why it isn't and the next attempt.
func (o *observed) sandbox(hostNetwork bool) (id string, attempt uint32, why string) {
	if len(o.sandboxes) == 0 {
		return "", 0, "No sandbox for pod can be found. Need to start a new one"
	}
	ready := 0
	for _, s := range o.sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	newest := o.sandboxes[0]
	next := newest.GetMetadata().GetAttempt() + 1
	switch {
	case ready > 1:
		return "", next, "Multiple sandboxes are ready for Pod. Need to reconcile them"
	case newest.State != runtimeapi.PodSandboxState_SANDBOX_READY:
		return "", next, "No ready sandbox for pod can be found. Need to start a new one"
	case !hostNetwork && newest.GetNetwork().GetIp() == "":
		return "", next, "Sandbox for pod has no IP address. Need to start a new one"
	}
	return newest.Id, newest.GetMetadata().GetAttempt(), ""
}

// addresses of the newest ready sandbox.
func (o *observed) addresses() []string {
	if len(o.sandboxes) == 0 || o.sandboxes[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil
	}
	network := o.sandboxes[0].GetNetwork()
	if network.GetIp() == "" {
		return nil
	}
	out := []string{network.Ip}
	for _, more := range network.AdditionalIps {
		out = append(out, more.Ip)
	}
	return out
}
