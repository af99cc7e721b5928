// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// host is what a pod's status says of its node.
type host struct {
	ips []string
	// runtimeName is the scheme of container IDs: containerd.
	runtimeName string
}

// makeStatus computes the pod's status. The pod's present status is what it starts from: conditions of other writers, start
// time and transition times are kept.
func makeStatus(s situation, p *plan, h host) pcorev1.PodStatus {
	s = s.inEpoch()
	old := &s.pod.Status
	out := pcorev1.PodStatus{PodStatus: corev1.PodStatus{
		ObservedGeneration:    s.pod.Generation,
		StartTime:             old.StartTime,
		QOSClass:              old.QOSClass,
		Resize:                old.Resize,
		ResourceClaimStatuses: old.ResourceClaimStatuses,
	}}
	if out.StartTime == nil {
		now := metav1.NewTime(s.now.Truncate(time.Second))
		out.StartTime = &now
	}
	if out.QOSClass == "" {
		out.QOSClass = podstate.QOSClass(&s.pod.Spec.PodSpec)
	}
	if whole := s.pod.Spec.Resources; whole != nil {
		out.Resources, out.AllocatedResources = whole.DeepCopy(), whole.Requests
	}
	setAddresses(s, p, h, &out)

	sandboxID, _, why := s.seen.sandbox(s.pod.Spec.HostNetwork)
	spec := &s.pod.Spec.PodSpec
	out.InitContainerStatuses = containerStatuses(s, p, h, spec.InitContainers, old.InitContainerStatuses, kindInit)
	out.ContainerStatuses = containerStatuses(s, p, h, spec.Containers, old.ContainerStatuses, kindMain)
	out.EphemeralContainerStatuses = containerStatuses(s, p, h, ephemeral(spec), old.EphemeralContainerStatuses, kindEphemeral)

	initialized := podstate.IsTrue(old.Conditions, corev1.PodInitialized)
	out.Phase = podstate.Phase(spec, out.InitContainerStatuses, out.ContainerStatuses, p.ending, initialized)
	switch {
	case podstate.IsTerminal(old.Phase):
		out.Phase, out.Reason, out.Message = old.Phase, old.Reason, old.Message
	case p.fail != nil:
		out.Phase, out.Reason, out.Message = corev1.PodFailed, p.fail.reason, p.fail.message
	}
	if p.down {
		tellDown(&out, old)
	}
	// A failed pod is told when its processes are gone, so that nobody starts its successor beside it.
	if p.fail != nil && !podstate.IsTerminal(old.Phase) && s.seen.anyRuns() {
		out.Phase = corev1.PodRunning
	}
	if failure := s.mem.sandboxFailed; why != "" && failure.message != "" {
		why = failure.message
	}
	conditions := podstate.Conditions(spec, podstate.Facts{
		Phase: out.Phase, Init: out.InitContainerStatuses, Main: out.ContainerStatuses,
		SandboxReady: sandboxID != "", SandboxMessage: why, RestartingAll: len(s.asked) > 0 && !p.ending, Others: old.Conditions,
	})
	out.Deaths = statusDeaths(s, h)
	if p.fail != nil && p.fail.disruption {
		conditions = append(conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: p.fail.message,
		})
	}
	conditions = append(conditions, resizeConditions(s)...)
	out.Conditions = podstate.Stamp(conditions, withoutResize(old.Conditions, conditions), s.pod.Generation, s.now)

	shown := *s.pod
	shown.Status = out
	out.Columns = podstate.Columns(&shown, s.pod.DeletionTimestamp != nil)
	return out
}

func (o *observed) anyRuns() bool {
	for _, c := range o.containers {
		if c.mayRun() {
			return true
		}
	}
	return false
}

func setAddresses(s situation, p *plan, h host, out *pcorev1.PodStatus) {
	for _, ip := range h.ips {
		out.HostIPs = append(out.HostIPs, corev1.HostIP{IP: ip})
	}
	ips := s.seen.addresses()
	if s.pod.Spec.HostNetwork {
		ips = h.ips
	}
	for _, ip := range ips {
		out.PodIPs = append(out.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(out.PodIPs) == 0 && p.ending {
		out.PodIPs = s.pod.Status.PodIPs
	}
	if len(out.HostIPs) > 0 {
		out.HostIP = out.HostIPs[0].IP
	}
	if len(out.PodIPs) > 0 {
		out.PodIP = out.PodIPs[0].IP
	}
}

func containerStatuses(s situation, p *plan, h host, list []corev1.Container, old []corev1.ContainerStatus, kind string) []corev1.ContainerStatus {
	if len(list) == 0 {
		return nil
	}
	out := make([]corev1.ContainerStatus, 0, len(list))
	for i := range list {
		c := &list[i]
		status := containerStatus(s, p, h, c, podstate.FindStatus(old, c.Name), kind)
		if kind == kindEphemeral {
			status.Ready, status.Started = false, nil // As upstream: it has no probes and nobody waits for it.
		}
		showResources(&status, c, s.seen.latest(c.Name), s.mem)
		out = append(out, status)
	}
	return out
}

func containerStatus(s situation, p *plan, h host, c *corev1.Container, old *corev1.ContainerStatus, kind string) corev1.ContainerStatus {
	no := false
	latest := s.seen.latest(c.Name)
	if latest == nil {
		status := unseenStatus(s, c, old, kind)
		status.Started = &no
		status.Ready = kind == kindInit && !podstate.IsSidecar(c) && status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
		wait(&status, p.waiting[c.Name])
		return status
	}
	status := corev1.ContainerStatus{
		Name: c.Name, Image: latest.GetImage().GetImage(), ImageID: latest.ImageRef, ContainerID: h.runtimeName + "://" + latest.Id,
		RestartCount: latest.restartCount(), Started: &no,
	}
	// The name that the user wrote says more than an ID by which the runtime found the image.
	if name := latest.GetImage().GetUserSpecifiedImage(); name != "" {
		status.Image = name
	} else if status.Image == "" || status.Image == latest.ImageRef || status.Image == latest.ImageId {
		status.Image = c.Image
	}
	if older := s.seen.before(latest); older.exited() {
		status.LastTerminationState.Terminated = terminated(older, h, s.mem)
		if older.epoch() < latest.epoch() {
			tellRestartOfAll(c, status.LastTerminationState.Terminated)
		}
	} else if old != nil {
		status.LastTerminationState = old.LastTerminationState
	}
	hook := s.mem.hooks[latest.Id]
	switch {
	case latest.running() && hook.running:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: defaultWaiting(s, kind)}
	case latest.running():
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: seconds(latest.StartedAt)}
		results := s.mem.results(c, latest.Id)
		started := results.started && hook.failed == ""
		status.Started, status.Ready = &started, started && results.ready
	case latest.exited() && s.isOver(latest) && !p.ending:
		status.State.Waiting = waitingForAll(s, kind)
		status.LastTerminationState.Terminated = terminated(latest, h, s.mem)
		tellRestartOfAll(c, status.LastTerminationState.Terminated)
	case latest.exited():
		status.State.Terminated = terminated(latest, h, s.mem)
		status.Ready = kind == kindInit && !podstate.IsSidecar(c) && latest.ExitCode == 0
	default:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: defaultWaiting(s, kind)}
	}
	if !status.Ready {
		wait(&status, p.waiting[c.Name])
	}
	return status
}

// waitingForAll is the state of a container that has ended in an epoch that is over and isn't started in the next one yet.
func waitingForAll(s situation, kind string) *corev1.ContainerStateWaiting {
	if len(s.asked) == 0 {
		return &corev1.ContainerStateWaiting{Reason: defaultWaiting(s, kind)}
	}
	return &corev1.ContainerStateWaiting{Reason: podstate.ReasonRestartingAllContainers, Message: s.whyAll()}
}

// tellRestartOfAll gives a container's last end in its epoch the reason that it was over, whatever became of the container itself; only one
// that asked for it keeps its own.
func tellRestartOfAll(c *corev1.Container, end *corev1.ContainerStateTerminated) {
	if !podstate.RestartsAllAfter(c, end.ExitCode) {
		end.Reason = podstate.ReasonRestartingAllContainers
	}
}

// unseenStatus is the status of a container of which the runtime holds nothing.
func unseenStatus(s situation, c *corev1.Container, old *corev1.ContainerStatus, kind string) corev1.ContainerStatus {
	status := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
	status.State.Waiting = &corev1.ContainerStateWaiting{Reason: defaultWaiting(s, kind)}
	switch {
	case kind == kindInit && !podstate.IsSidecar(c) && mainSeen(s) && (old == nil || old.State.Terminated == nil):
		// Init containers go from the runtime before the main ones: these have started, so it ended well.
		status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", Message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
		}}
	case old == nil:
	case old.State.Terminated != nil:
		return *old.DeepCopy()
	default:
		status.RestartCount, status.LastTerminationState = old.RestartCount, old.LastTerminationState
		if old.State.Running != nil {
			status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
				Reason: "ContainerStatusUnknown", Message: "The container could not be located when the pod was looked at.  The container used to be Running",
				ExitCode: 137, ContainerID: old.ContainerID,
			}
		}
	}
	return status
}

func mainSeen(s situation) bool {
	for i := range s.pod.Spec.Containers {
		if s.latest(s.pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

func defaultWaiting(s situation, kind string) string {
	if len(s.pod.Spec.InitContainers) > 0 && kind != kindEphemeral {
		return "PodInitializing"
	}
	return "ContainerCreating"
}

// wait shows why a container isn't started; what it ended with before becomes its last state.
func wait(status *corev1.ContainerStatus, why startFailure) {
	if why.reason == "" {
		return
	}
	if status.State.Terminated != nil {
		status.LastTerminationState = status.State
	}
	status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why.reason, Message: why.message}}
}

func terminated(c *container, h host, mem *memory) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
		StartedAt: seconds(c.StartedAt), FinishedAt: seconds(c.FinishedAt), ContainerID: h.runtimeName + "://" + c.Id,
	}
	if message := mem.messages[c.Id]; message != "" {
		t.Message = message
	}
	if t.Reason == "" {
		if t.Reason = "Completed"; t.ExitCode != 0 {
			t.Reason = "Error"
		}
	}
	return t
}

// seconds is a runtime's time as the API keeps it, without fractions, so that a status read back compares equal.
func seconds(nanos int64) metav1.Time {
	if nanos == 0 {
		return metav1.Time{}
	}
	return metav1.Unix(nanos/int64(time.Second), 0)
}

// sameStatus tells whether writing wanted would change nothing.
func sameStatus(wanted, now *pcorev1.PodStatus) bool {
	return equality.Semantic.DeepEqual(wanted, now)
}

// holdUntil says how long a changed status may wait, so that a quick start or a quick end is one write: zero means that
// it is to be written now. A status that tells bad news or the wanted end state never waits.
func holdUntil(s situation, p *plan, status *pcorev1.PodStatus, firstSeen time.Time, window time.Duration) time.Time {
	until := time.Time{}
	switch {
	case s.pod.DeletionTimestamp != nil:
		until = s.mem.endingSince.Add(window)
	case podstate.IsTerminal(status.Phase), podstate.IsTrue(status.Conditions, corev1.PodReady), s.mem.sandboxFailed.message != "":
	case s.pod.Status.StartTime != nil:
		// Not the first status: a change from there is told at once.
	default:
		until = firstSeen.Add(window)
		for _, why := range p.waiting {
			if why.reason != "" {
				until = time.Time{}
			}
		}
	}
	if !until.After(s.now) {
		return time.Time{}
	}
	return until
}
