// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/probe"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// containerProbes asks one running container. Between two questions a probe is a timer, not a goroutine.
type containerProbes struct {
	mu      sync.Mutex
	timers  []*time.Timer
	stopped bool
}

// probeKind tells the three probes apart.
type probeKind int

const (
	startupProbe probeKind = iota
	livenessProbe
	readinessProbe
)

var probeNames = map[probeKind]string{startupProbe: "Startup", livenessProbe: "Liveness", readinessProbe: "Readiness"}

// look brings memory up to date with what was observed: probes of new containers begin, those of ended ones stop, and
// the messages of ended containers are read once.
func (r *Reconciler) look(rec *record, pod *pcorev1.Pod, seen *observed) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.trim(seen)
	running := map[string]bool{}
	for _, c := range seen.containers {
		spec := findContainer(&pod.Spec.PodSpec, c.name())
		switch {
		case spec == nil:
		case c.running():
			running[c.Id] = true
			if !rec.mem.hooks[c.Id].running && rec.mem.hooks[c.Id].failed == "" {
				r.beginProbes(rec, pod, seen, spec, c)
			}
		case c.exited():
			rec.readMessage(pod, spec, c)
		}
	}
	rec.noteDeaths(pod, seen)
	for id, p := range rec.probes {
		if !running[id] {
			p.stop()
			delete(rec.probes, id)
		}
	}
}

// readMessage keeps what an ended container left as its termination message. The lock is held.
func (r *record) readMessage(pod *pcorev1.Pod, c *corev1.Container, ended *container) {
	if _, known := r.mem.messages[ended.Id]; known {
		return
	}
	killed := outOfMemory(pod, c, ended)
	if r.node.Volumes == nil {
		if killed != "" {
			set(&r.mem.messages, ended.Id, killed)
		}
		return
	}
	const most = 4096 // Upstream's bound for a container.
	text := r.node.Volumes.ReadTail(r.uid, messageFile(c.Name, ended.restartCount()), most)
	if text == "" && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError && ended.ExitCode != 0 && ended.LogPath != "" {
		text = logTail(volume.ReadTail(ended.LogPath, 4*most), 2048, 80)
	}
	if killed != "" {
		text = strings.TrimRight(killed+"\n"+text, "\n")
	}
	set(&r.mem.messages, ended.Id, text)
}

// beginProbes begins the probes of a running container that has some and isn't asked yet. The lock is held.
func (r *Reconciler) beginProbes(rec *record, pod *pcorev1.Pod, seen *observed, c *corev1.Container, running *container) {
	if rec.node.Simulated || c.StartupProbe == nil && c.LivenessProbe == nil && c.ReadinessProbe == nil || rec.probes[running.Id] != nil {
		return
	}
	if running.kind() == kindInit {
		return // Init containers that end have no probes.
	}
	probes := &containerProbes{}
	set(&rec.probes, running.Id, probes)
	target := r.target(rec, pod, seen, c, running.Id)
	began := time.Unix(0, running.StartedAt)
	begin := func(kind probeKind, p *corev1.Probe) {
		if p != nil {
			a := &asker{r: r, rec: rec, pod: pod, container: c, id: running.Id, kind: kind, probe: p, target: target, probes: probes}
			a.begin(began)
		}
	}
	if old := podstate.FindStatus(pod.Status.ContainerStatuses, c.Name); old != nil && adopted(old, running.Id) {
		// The agent was restarted, the container wasn't: what was known holds until the probes say otherwise.
		set(&rec.mem.probed, running.Id, probeResults{started: old.Started != nil && *old.Started, ready: old.Ready})
	}
	begin(startupProbe, c.StartupProbe)
	begin(livenessProbe, c.LivenessProbe)
	begin(readinessProbe, c.ReadinessProbe)
}

func adopted(old *corev1.ContainerStatus, id string) bool {
	n := len(old.ContainerID) - len(id)
	return n > 0 && old.ContainerID[n:] == id
}

// asker is one probe of one container.
type asker struct {
	r         *Reconciler
	rec       *record
	pod       *pcorev1.Pod
	container *corev1.Container
	id        string
	kind      probeKind
	probe     *corev1.Probe
	target    probe.Target
	probes    *containerProbes

	successes, failures int32
}

func (a *asker) begin(began time.Time) {
	delay := max(time.Until(began.Add(time.Duration(a.probe.InitialDelaySeconds)*time.Second)), 0)
	if a.r.options.Now().Sub(began) > time.Minute {
		// After a restart of the agent not all probes of the node ask at the same time.
		delay = time.Duration(rand.Int64N(int64(a.period())))
	}
	a.after(delay)
}

func (a *asker) period() time.Duration {
	return time.Duration(orDefault(a.probe.PeriodSeconds, 10)) * time.Second
}

func (a *asker) after(d time.Duration) {
	a.probes.mu.Lock()
	defer a.probes.mu.Unlock()
	if !a.probes.stopped {
		a.probes.replace(a.kind, time.AfterFunc(d, a.ask))
	}
}

// ask asks once, draws the conclusions, and sets the timer for the next time.
func (a *asker) ask() {
	a.rec.mu.Lock()
	results := a.rec.mem.results(a.container, a.id)
	a.rec.mu.Unlock()
	switch {
	case a.kind == startupProbe && results.started:
		return // Asked no more.
	case a.kind != startupProbe && !results.started:
		a.after(min(a.period(), time.Second))
		return
	}
	ctx, cancel := context.WithCancel(a.r.context())
	defer cancel()
	timeout := time.Duration(orDefault(a.probe.TimeoutSeconds, 1)) * time.Second
	ok, output, err := probe.Run(ctx, &a.probe.ProbeHandler, a.target, timeout)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		ok, output = false, message(err)
	}
	if a.count(ok, output) {
		a.r.wake(a.rec.key)
	}
	next := a.period()
	if a.kind == startupProbe && ok {
		return
	}
	a.after(next)
}

// count draws the conclusions of one answer; true when they change something.
func (a *asker) count(ok bool, output string) bool {
	if ok {
		a.successes, a.failures = a.successes+1, 0
	} else {
		a.successes, a.failures = 0, a.failures+1
	}
	a.rec.mu.Lock()
	defer a.rec.mu.Unlock()
	before := a.rec.mem.probed[a.id]
	after := before
	if !ok {
		a.r.event(a.pod, corev1.EventTypeWarning, "Unhealthy", "Probing", probeNames[a.kind]+" probe of container "+a.container.Name+" failed: "+output)
	}
	passed := a.successes >= orDefault(a.probe.SuccessThreshold, 1)
	broken := a.failures >= orDefault(a.probe.FailureThreshold, 3)
	switch a.kind {
	case startupProbe:
		after.started, after.startupFailed = after.started || passed, broken
	case livenessProbe:
		after.livenessFailed = broken
	case readinessProbe:
		if passed {
			after.ready = true
		} else if broken {
			after.ready = false
		}
	}
	if after == before {
		return false
	}
	set(&a.rec.mem.probed, a.id, after)
	return true
}

// replace keeps the newest timer of a probe. The lock is held.
func (p *containerProbes) replace(kind probeKind, timer *time.Timer) {
	for len(p.timers) <= int(kind) {
		p.timers = append(p.timers, nil)
	}
	p.timers[kind] = timer
}

func (p *containerProbes) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	for _, t := range p.timers {
		if t != nil {
			t.Stop()
		}
	}
}

// stopProbes ends all probes of the pod.
func (r *record) stopProbes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.probes {
		p.stop()
		delete(r.probes, id)
	}
}

func (r *Reconciler) context() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base
}

func orDefault(n, otherwise int32) int32 {
	if n == 0 {
		return otherwise
	}
	return n
}
