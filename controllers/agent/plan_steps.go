// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

const (
	runtimeRunning = runtimeapi.ContainerState_CONTAINER_RUNNING
	runtimeCreated = runtimeapi.ContainerState_CONTAINER_CREATED
)

// graceLeast is what a sidecar gets when the main containers have used up the pod's grace; upstream's minimum.
const graceLeast = 2 * time.Second

// endMessage is why containers of a pod are stopped that runs no more.
const endMessage = "the pod ends"

// planInit starts the init containers one after the other and keeps sidecars running. initialized says that the main
// containers may start; failed that an init container ended for good without success.
func planInit(s situation, p *plan, sandboxID string) (initialized, failed bool) {
	list := s.pod.Spec.InitContainers
	last := -1
	for i := range list {
		if s.latestIn(sandboxID, list[i].Name) != nil {
			last = i
		}
	}
	mainSeen := false
	for i := range s.pod.Spec.Containers {
		mainSeen = mainSeen || s.latestIn(sandboxID, s.pod.Spec.Containers[i].Name) != nil
	}
	if mainSeen {
		last = len(list)
	}
	// The ones before the newest are done; of those only sidecars matter, and they don't hold up the others.
	for i := 0; i < min(last, len(list)); i++ {
		if podstate.IsSidecar(&list[i]) {
			keepSidecar(s, p, sandboxID, i)
		}
	}
	switch {
	case last == len(list):
		return true, false
	case last < 0 && len(list) > 0:
		p.startWhenDue(s, &list[0], kindOfInit(s, 0))
		return false, false
	case last < 0:
		return true, false
	}
	done, failed := stepInit(s, p, sandboxID, last)
	if !done {
		return false, failed
	}
	if last+1 == len(list) {
		return true, false
	}
	p.startWhenDue(s, &list[last+1], kindOfInit(s, last+1))
	return false, false
}

// stepInit looks at the newest init container; done says that the next one may start.
func stepInit(s situation, p *plan, sandboxID string, i int) (done, failed bool) {
	c := &s.pod.Spec.InitContainers[i]
	if podstate.IsSidecar(c) {
		return keepSidecar(s, p, sandboxID, i), false
	}
	latest := s.latestIn(sandboxID, c.Name)
	switch {
	case latest.mayRun():
		if latest.running() && s.mem.hooks[latest.Id].failed == "" {
			return false, false
		}
		p.stopOnce(s, stopStep{container: latest, grace: gracePeriod(s.pod), message: "Init container " + c.Name + " is in an unknown state"})
		return false, false
	case latest.exited() && latest.ExitCode == 0:
		return true, false
	case latest.exited() && !podstate.RestartsAfter(c, &s.pod.Spec.PodSpec, latest.ExitCode):
		return false, true
	}
	p.startWhenDue(s, c, kindInit)
	return false, false
}

// keepSidecar restarts a sidecar that has ended or is unhealthy; true when it has started.
func keepSidecar(s situation, p *plan, sandboxID string, i int) bool {
	c := &s.pod.Spec.InitContainers[i]
	latest := s.latestIn(sandboxID, c.Name)
	if !latest.mayRun() {
		p.startWhenDue(s, c, kindSidecar)
		return false
	}
	stops := len(p.stop)
	keepRunning(s, p, c, latest)
	return len(p.stop) == stops && !s.mem.stopping[latest.Id] && !s.mem.hooks[latest.Id].running && s.mem.results(c, latest.Id).started
}

func kindOfInit(s situation, i int) string {
	if podstate.IsSidecar(&s.pod.Spec.InitContainers[i]) {
		return kindSidecar
	}
	return kindInit
}

// planEnd stops the pod: main, init and ephemeral containers together, then the sidecars one by one from the last to the
// first, then the sandbox. Of a deleted pod the sandbox is removed as well; of one that is done it stays, for its logs.
func planEnd(s situation, p *plan) {
	*p = plan{waiting: map[string]startFailure{}, fail: p.fail, ending: true}
	since := s.mem.endingSince
	if since.IsZero() {
		since = s.now
	}
	grace := gracePeriod(s.pod)
	if p.fail != nil && p.fail.grace != nil {
		grace = *p.fail.grace
	}
	if s.mem.facts.down == downForNow {
		grace = min(grace, downGraceMost)
	}
	left := max(since.Add(grace).Sub(s.now), min(grace, graceLeast))

	var sidecars []*container
	busy := false
	for _, c := range s.seen.containers {
		switch {
		case !c.mayRun():
		case c.kind() == kindSidecar:
			sidecars = append(sidecars, c)
		default:
			busy = true
			p.stopOnce(s, stopStep{container: c, grace: left, message: endMessage})
		}
	}
	if busy {
		return
	}
	if len(sidecars) > 0 {
		p.stopOnce(s, stopStep{container: lastSidecar(s, sidecars), grace: left, message: endMessage})
		return
	}
	planEndSandboxes(s, p)
}

func lastSidecar(s situation, running []*container) *container {
	for i := len(s.pod.Spec.InitContainers) - 1; i >= 0; i-- {
		for _, c := range running {
			if c.name() == s.pod.Spec.InitContainers[i].Name {
				return c
			}
		}
	}
	return running[0]
}

func planEndSandboxes(s situation, p *plan) {
	p.gone = true
	for _, sandbox := range s.seen.sandboxes {
		ready := sandbox.State == runtimeapi.PodSandboxState_SANDBOX_READY
		if ready {
			p.stopSandboxes = append(p.stopSandboxes, sandbox.Id)
			p.gone = false
		}
		if s.pod.DeletionTimestamp != nil || evicted(s.pod) {
			p.removeSandboxes = append(p.removeSandboxes, sandbox.Id)
			p.gone = false
		}
	}
}

// evicted says that the pod's end is told and that it had to go for the node's sake: what it holds on disk is given back, logs included.
func evicted(pod *pcorev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == podstate.ReasonEvicted
}
