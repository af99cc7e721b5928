// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// situation is all that a plan follows from.
type situation struct {
	pod  *pcorev1.Pod
	seen *observed
	mem  *memory
	now  time.Time

	// epoch counts the restarts of all containers, asked are those whose end asks for the one that has just begun and has started nothing
	// yet; inEpoch sets them.
	epoch int32
	asked []*container
}

// memory is what the agent knows of a pod and the runtime doesn't. The zero value knows nothing. It is lost when the agent
// restarts, which does no harm: back-offs begin anew and probes ask again.
type memory struct {
	// crash back-offs by container name.
	crash map[string]backoff
	// failed starts by container name: what a container that couldn't be started waits for.
	failed map[string]startFailure
	// stopping has the IDs of the containers and sandboxes of which a job runs.
	stopping map[string]bool
	// hooks by container ID: postStart hooks that run or have failed.
	hooks map[string]hookState
	// probed has the results by container ID; with withoutProbes every probe counts as passed.
	probed        map[string]probeResults
	withoutProbes bool
	// facts are what the node allows, and whether it goes down.
	facts nodeFacts
	// messages are the termination messages by container ID.
	messages map[string]string
	// stopReasons says by container ID why the agent stopped it.
	stopReasons map[string]string
	// deaths are the last ends of the containers, with the runtime's bare IDs; deathsRead says that what an earlier agent
	// noted is among them.
	deaths     []pcorev1.ContainerDeath
	deathsRead bool
	// sandboxFailed is why the last try to make a sandbox failed, and when to try again.
	sandboxFailed startFailure
	// endingSince is when the agent began to end the pod; zero while it lives.
	endingSince time.Time
	// fail is a reason for the whole pod to fail, such as DeadlineExceeded.
	fail *podFailure
	// unfit is why the node has no place for the pod; the zero value when it has.
	unfit podFailure
	// resize is how far the pod's wish for other resources has come.
	resize resizeState
}

// startFailure is why something could not be started.
type startFailure struct {
	reason, message string
	// retryAt is when to try again; zero: when something else changes (a pull ends).
	retryAt time.Time
	delay   time.Duration
}

type hookState struct {
	running bool
	failed  string
}

// probeResults of one container.
type probeResults struct {
	started, ready bool
	// startupFailed and livenessFailed say that the threshold was reached: the container is to be killed.
	startupFailed, livenessFailed bool
}

// results of a running container's probes. A probe that it doesn't have is as if it had passed.
func (m *memory) results(c *corev1.Container, id string) probeResults {
	r := m.probed[id]
	if c.StartupProbe == nil || m.withoutProbes {
		r.started, r.startupFailed = true, false
	}
	if c.ReadinessProbe == nil || m.withoutProbes {
		r.ready = true
	}
	return r
}

// podFailure is why a whole pod fails.
type podFailure struct {
	reason, message string
	// grace is what its containers get to end; nil: the pod's own.
	grace *time.Duration
	// disruption says that the agent ended the pod for the node's sake, which the condition DisruptionTarget tells.
	disruption bool
}

// plan is what to do now. Steps of one plan don't depend on each other, except that stops come first.
type plan struct {
	// stop these containers, each as a job.
	stop []stopStep
	// stopSandboxes and then removeSandboxes, when nothing runs in them any more.
	stopSandboxes, removeSandboxes []string
	removeContainers               []string
	// createSandbox with this attempt.
	createSandbox bool
	attempt       uint32
	// start these containers in this order.
	start []startStep
	// resize what runs; nil: all have what is allocated.
	resize *resizeStep
	// waiting says by container name why it isn't started now.
	waiting map[string]startFailure
	// wake is when to look again without an event; zero: not needed.
	wake time.Time
	// ending says that the pod is to run no more, whether deleted, failed or done; gone that nothing of it is left.
	ending, gone bool
	// down says that it ends with its node alone, and is to run again with it.
	down bool
	fail *podFailure
}

// onlyMakes says that the plan takes nothing away: what is new is all that will have changed.
func (p *plan) onlyMakes() bool {
	replaces := func(s startStep) bool { return s.replaces != "" }
	return len(p.stop)+len(p.stopSandboxes)+len(p.removeSandboxes)+len(p.removeContainers) == 0 && !slices.ContainsFunc(p.start, replaces)
}

type startStep struct {
	container *corev1.Container
	kind      string
	// restartCount of the new container, which is also its attempt.
	restartCount int32
	// replaces is a container that was created but never started, to be removed first.
	replaces string
	// crash is the back-off that holds once it is started; nil leaves it.
	crash *backoff
	// target is the container whose processes an ephemeral one sees; empty: its own.
	target string
	// epoch of the pod.
	epoch int32
}

type stopStep struct {
	container *container
	grace     time.Duration
	message   string
	// resize says that the container is to be started again with other resources, whatever its restart policy.
	resize bool
}

// makePlan decides what to do with a pod. It is pure; the idea is the kubelet's computePodActions.
func makePlan(s situation) plan {
	s = s.inEpoch()
	p := &plan{waiting: map[string]startFailure{}, fail: s.mem.fail}
	if p.fail == nil {
		p.fail = pastDeadline(s, p)
	}
	if p.fail == nil {
		p.fail = refused(s)
	}
	if p.fail == nil && s.pod.DeletionTimestamp == nil && s.mem.facts.down != downForNow {
		p.fail = restartedTooOften(s)
	}
	if s.pod.DeletionTimestamp != nil || podstate.IsTerminal(s.pod.Status.Phase) || p.fail != nil {
		planEnd(s, p)
		return *p
	}
	if s.mem.facts.down == downForNow {
		planEnd(s, p)
		p.down = true
		return *p
	}
	sandboxID, attempt, why := s.seen.sandbox(s.pod.Spec.HostNetwork)
	if why != "" {
		planSandbox(s, p, attempt)
		return *p
	}
	planGarbage(s, p, sandboxID)
	planEphemeral(s, p)
	if !planEpoch(s, p) {
		return *p
	}
	planResize(s, p, sandboxID)
	initialized, failed := planInit(s, p, sandboxID)
	if failed {
		planEnd(s, p)
		return *p
	}
	if initialized && !planMain(s, p, sandboxID) || p.fail != nil {
		planEnd(s, p)
	}
	return *p
}

// pastDeadline says whether spec.activeDeadlineSeconds is over.
func pastDeadline(s situation, p *plan) *podFailure {
	seconds := s.pod.Spec.ActiveDeadlineSeconds
	if seconds == nil {
		return nil
	}
	start := s.now // This look's status is the first to tell it; our own write of it brings no other look.
	if t := s.pod.Status.StartTime; t != nil {
		start = t.Time
	}
	deadline := start.Add(time.Duration(*seconds) * time.Second)
	if s.now.Before(deadline) {
		p.wakeAt(deadline)
		return nil
	}
	return &podFailure{reason: "DeadlineExceeded", message: "Pod was active on the node longer than the specified deadline"}
}

// planSandbox replaces a sandbox that is no good, or makes the first one. What still runs in an old one is stopped first.
func planSandbox(s situation, p *plan, attempt uint32) {
	busy := false
	for _, c := range s.seen.containers {
		if c.mayRun() {
			busy = true
			p.stopOnce(s, stopStep{container: c, grace: gracePeriod(s.pod), message: "the pod's sandbox changed"})
		}
	}
	if busy {
		return
	}
	for _, old := range s.seen.sandboxes {
		if !s.mem.stopping[old.Id] {
			p.stopSandboxes = append(p.stopSandboxes, old.Id)
		}
	}
	if len(s.seen.containers) > 0 && !anythingToRestart(s) {
		planEnd(s, p)
		return
	}
	if s.mem.sandboxFailed.retryAt.After(s.now) {
		p.wakeAt(s.mem.sandboxFailed.retryAt)
		return
	}
	p.createSandbox, p.attempt = true, attempt
}

// anythingToRestart says, for a pod that lost its sandbox, whether a container is to run in a new one.
func anythingToRestart(s situation) bool {
	if len(s.asked) > 0 {
		return true
	}
	spec := &s.pod.Spec.PodSpec
	mainSeen := false
	for i := range spec.Containers {
		c := s.latest(spec.Containers[i].Name)
		if c == nil {
			continue
		}
		mainSeen = true
		if !c.exited() || podstate.RestartsAfter(&spec.Containers[i], spec, c.ExitCode) {
			return true
		}
	}
	if mainSeen {
		for i := range spec.Containers {
			if s.latest(spec.Containers[i].Name) == nil {
				return spec.RestartPolicy != corev1.RestartPolicyNever
			}
		}
		return false
	}
	return spec.RestartPolicy != corev1.RestartPolicyNever
}

// planGarbage removes what nobody needs any more: of each name all dead containers but the newest two, of which the older
// is the last state, and old sandboxes without containers.
func planGarbage(s situation, p *plan, sandboxID string) {
	count := map[string]int{}
	held := map[string]bool{}
	for _, c := range s.seen.containers {
		count[c.name()]++
		if c.exited() && count[c.name()] > 2 {
			p.removeContainers = append(p.removeContainers, c.Id)
			continue
		}
		held[c.sandboxID] = true
	}
	for _, old := range s.seen.sandboxes {
		if old.Id != sandboxID && !held[old.Id] && !s.mem.stopping[old.Id] {
			p.removeSandboxes = append(p.removeSandboxes, old.Id)
		}
	}
}

// planMain keeps the main containers as wanted; false when there is nothing left to run: the pod is done.
func planMain(s situation, p *plan, sandboxID string) bool {
	spec := &s.pod.Spec.PodSpec
	alive := false
	for i := range spec.Containers {
		c := &spec.Containers[i]
		latest := s.latestIn(sandboxID, c.Name)
		switch {
		case latest.mayRun():
			alive = true
			keepRunning(s, p, c, latest)
		case latest.exited() && !podstate.RestartsAfter(c, spec, latest.ExitCode) && !s.mem.resize.restarting[latest.Id]:
		case latest == nil && doneInSandboxBefore(s, c):
		default:
			alive = true
			p.startWhenDue(s, c, kindMain)
		}
	}
	return alive
}

// doneInSandboxBefore says that a container ended for good in an earlier sandbox.
func doneInSandboxBefore(s situation, c *corev1.Container) bool {
	old := s.latest(c.Name)
	return old.exited() && !podstate.RestartsAfter(c, &s.pod.Spec.PodSpec, old.ExitCode)
}

// keepRunning stops a running container that is unhealthy or out of date; whether it is started again is decided once it
// has ended.
func keepRunning(s situation, p *plan, c *corev1.Container, latest *container) {
	grace := gracePeriod(s.pod)
	results, hook := s.mem.results(c, latest.Id), s.mem.hooks[latest.Id]
	var message string
	switch {
	case latest.State != runtimeRunning:
		message = "Container " + c.Name + " is in an unknown state"
	case hook.failed != "":
		message = "FailedPostStartHook"
	case latest.GetAnnotations()[annotationHash] != "" && latest.GetAnnotations()[annotationHash] != containerHash(c):
		message = "Container " + c.Name + " definition changed"
	case results.livenessFailed:
		message, grace = "Container "+c.Name+" failed liveness probe", probeGrace(c.LivenessProbe, grace)
	case results.startupFailed:
		message, grace = "Container "+c.Name+" failed startup probe", probeGrace(c.StartupProbe, grace)
	default:
		return
	}
	p.stopOnce(s, stopStep{container: latest, grace: grace, message: message})
}

func probeGrace(probe *corev1.Probe, otherwise time.Duration) time.Duration {
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	return otherwise
}

func gracePeriod(pod *pcorev1.Pod) time.Duration {
	return time.Duration(graceSeconds(pod)) * time.Second
}

// startWhenDue starts a container, or says in waiting why it has to wait.
func (p *plan) startWhenDue(s situation, c *corev1.Container, kind string) {
	if fail := exhausted(s, c); fail != nil {
		p.fail = fail
		return
	}
	if p.blocked(s, c.Name) {
		return
	}
	var crash *backoff
	if ended := lastCrash(s, c); ended != nil {
		b := s.mem.crash[c.Name]
		if until := b.until(ended.finished()); until.After(s.now) {
			p.waiting[c.Name] = startFailure{reason: "CrashLoopBackOff", message: crashMessage(s.pod, c.Name, b), retryAt: until}
			p.wakeAt(until)
			return
		}
		next := b.next(ended.finished(), s.now)
		crash = &next
	}
	p.startNow(s, c, kind, crash)
	// One that never started holds the name of the attempt, whichever sandbox it is in.
	if latest := s.seen.latest(c.Name); latest != nil && latest.State == runtimeCreated {
		p.start[len(p.start)-1].replaces = latest.Id
	}
}

// lastCrash is the end after which a container's start backs off, in whichever sandbox it was: a new sandbox is no reason to spin faster. Of an
// epoch that is over only those count that asked for its end; the others are no crashes.
func lastCrash(s situation, c *corev1.Container) *container {
	ended := s.seen.latest(c.Name)
	if !ended.exited() || s.mem.resize.restarting[ended.Id] || s.isOver(ended) && !podstate.RestartsAllAfter(c, ended.ExitCode) {
		return nil
	}
	return ended
}

func (p *plan) startNow(s situation, c *corev1.Container, kind string, crash *backoff) {
	p.start = append(p.start, startStep{container: c, kind: kind, restartCount: nextRestartCount(s, c.Name), crash: crash, epoch: s.epoch})
}

// nextRestartCount continues what the runtime remembers, or, when it remembers nothing, the status: a container that
// had run already is restarted, even if nothing of it is left.
func nextRestartCount(s situation, name string) int32 {
	if latest := s.seen.latest(name); latest != nil {
		if latest.State == runtimeCreated {
			return latest.restartCount()
		}
		return latest.restartCount() + 1
	}
	for _, list := range [][]corev1.ContainerStatus{s.pod.Status.ContainerStatuses, s.pod.Status.InitContainerStatuses} {
		if old := podstate.FindStatus(list, name); old != nil && (old.ContainerID != "" || old.RestartCount > 0 || old.LastTerminationState.Terminated != nil) {
			return old.RestartCount + 1
		}
	}
	return 0
}

func (p *plan) stopOnce(s situation, step stopStep) {
	if !s.mem.stopping[step.container.Id] {
		p.stop = append(p.stop, step)
	}
}

func (p *plan) wakeAt(t time.Time) {
	if !t.IsZero() && (p.wake.IsZero() || t.Before(p.wake)) {
		p.wake = t
	}
}

// idle says that there is nothing to apply.
func (p *plan) idle() bool {
	return len(p.stop)+len(p.stopSandboxes)+len(p.removeSandboxes)+len(p.removeContainers)+len(p.start) == 0 && !p.createSandbox && p.resize == nil
}
