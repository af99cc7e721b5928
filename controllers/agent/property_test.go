// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// model plays a runtime and the passing of time over a pod, and checks what must always hold.
type model struct {
	t    *rapid.T
	pod  *pcorev1.Pod
	seen observed
	mem  memory
	now  time.Time

	next    int
	started map[epochName]int
	// interrupted: whoever starts the next container dies between its creation and its start; withSandbox: and its sandbox too.
	interrupted, withSandbox bool
}

type epochName struct {
	epoch int32
	name  string
}

// TestPlanIsSafeWhateverHappens runs random pods through random faults.
func TestPlanIsSafeWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, pod: drawPod(t), now: planNow, started: map[epochName]int{}}
		m.settle()
		t.Repeat(map[string]func(*rapid.T){
			"a container ends":  m.someEnds,
			"a probe fails":     m.someUnhealthy,
			"the sandbox dies":  m.sandboxDies,
			"time passes":       m.timePasses,
			"the agent forgets": m.agentForgets,
			"a start is interrupted": func(t *rapid.T) {
				m.interrupted, m.withSandbox = true, rapid.Bool().Draw(t, "with its sandbox")
			},
			"the pod is deleted": func(*rapid.T) {
				if m.pod.DeletionTimestamp == nil {
					m.pod.DeletionTimestamp = &metav1.Time{Time: m.now}
				}
			},
			"": func(*rapid.T) { m.settle(); m.check() },
		})
		m.end()
	})
}

func drawPod(t *rapid.T) *pcorev1.Pod {
	b := aPod("a").Restart(rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}).Draw(t, "policy"))
	for i := range rapid.IntRange(0, 3).Draw(t, "inits") {
		if rapid.Bool().Draw(t, "sidecar") {
			b.Sidecar(fmt.Sprintf("side%d", i))
		} else {
			b.Init(fmt.Sprintf("init%d", i))
		}
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "more") {
		b.Container(fmt.Sprintf("main%d", i))
	}
	for _, name := range []string{"main", "init0", "side0", "side1"} {
		if rapid.Float64().Draw(t, "restarts all") < 0.2 {
			operator := rapid.SampledFrom([]corev1.ContainerRestartRuleOnExitCodesOperator{in, notIn}).Draw(t, "operator")
			b.RestartAll(name, operator, rapid.Int32Range(0, 2).Draw(t, "code"))
		}
	}
	if rapid.Bool().Draw(t, "limited") {
		most := rapid.Int32Range(0, 3).Draw(t, "maxRestarts")
		b.Change(func(p *pcorev1.Pod) { p.Spec.MaxRestarts = &most })
	}
	return b.Obj()
}

// settle plans and applies until nothing is left to do.
func (m *model) settle() {
	for range 100 {
		m.withSandbox = m.withSandbox && m.interrupted
		p := makePlan(situation{pod: m.pod, seen: &m.seen, mem: &m.mem, now: m.now})
		if p.ending && m.mem.endingSince.IsZero() {
			m.mem.endingSince = m.now
		}
		status := makeStatus(situation{pod: m.pod, seen: &m.seen, mem: &m.mem, now: m.now}, &p, host{ips: []string{"192.0.2.1"}, runtimeName: "model"})
		m.pod.Status = status
		if p.idle() {
			return
		}
		m.apply(&p)
	}
	m.t.Fatal("the plan never comes to rest")
}

func (m *model) apply(p *plan) {
	for _, s := range p.stop {
		m.exit(s.container, 137)
	}
	for _, id := range p.removeContainers {
		m.remove(func(c *container) bool { return c.Id == id })
	}
	for _, id := range p.stopSandboxes {
		m.stopSandbox(id)
	}
	for _, id := range p.removeSandboxes {
		m.remove(func(c *container) bool { return c.sandboxID == id })
		for i, s := range m.seen.sandboxes {
			if s.Id == id {
				m.seen.sandboxes = append(m.seen.sandboxes[:i:i], m.seen.sandboxes[i+1:]...)
				break
			}
		}
	}
	if p.createSandbox {
		if p.ending || m.pod.DeletionTimestamp != nil {
			m.t.Fatal("a pod that ends gets a new sandbox")
		}
		m.next++
		m.seen.sandboxes = append(m.seen.sandboxes, &runtimeapi.PodSandboxStatus{
			Id: fmt.Sprint("s", m.next), State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: int64(m.next),
			Metadata: &runtimeapi.PodSandboxMetadata{Attempt: p.attempt}, Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.2"},
		})
	}
	for _, s := range p.start {
		m.start(s)
	}
	m.seen.sort()
}

func (m *model) start(s startStep) {
	if m.pod.DeletionTimestamp != nil {
		m.t.Fatalf("container %s of a deleted pod is started", s.container.Name)
	}
	if s.replaces != "" {
		m.remove(func(c *container) bool { return c.Id == s.replaces })
	}
	sandbox, _, why := m.seen.sandbox(false)
	if why != "" && m.withSandbox {
		return // It died while the plan was being applied.
	}
	if why != "" {
		m.t.Fatalf("container %s is started without a sandbox: %s", s.container.Name, why)
	}
	for _, c := range m.seen.containers {
		if c.name() == s.container.Name && c.running() {
			m.t.Fatalf("container %s is started twice", s.container.Name)
		}
		if c.epoch() < s.epoch && c.mayRun() {
			m.t.Fatalf("container %s of epoch %d is started while %s of epoch %d runs", s.container.Name, s.epoch, c.name(), c.epoch())
		}
		if c.epoch() > s.epoch {
			m.t.Fatalf("container %s is started in epoch %d, which is over: %s is of epoch %d", s.container.Name, s.epoch, c.name(), c.epoch())
		}
		if s.kind == kindMain && c.epoch() == s.epoch && c.name() == s.container.Name && c.exited() && !podstate.RestartsAfter(s.container, &m.pod.Spec.PodSpec, c.ExitCode) {
			m.t.Fatalf("container %s ended for good with %d and is started again", s.container.Name, c.ExitCode)
		}
		if c.name() == s.container.Name && c.restartCount() == s.restartCount {
			m.t.Fatalf("container %s is started with attempt %d again", s.container.Name, s.restartCount)
		}
	}
	if s.kind == kindMain {
		for i := range m.pod.Spec.InitContainers {
			init := &m.pod.Spec.InitContainers[i]
			c := m.seen.latestIn(sandbox, init.Name)
			if !podstate.IsSidecar(init) && !m.mainIn(sandbox, s.epoch) && (!c.exited() || c.ExitCode != 0 || c.epoch() != s.epoch) {
				m.t.Fatalf("container %s is started before init container %s was done", s.container.Name, init.Name)
			}
		}
	}
	if most := m.pod.Spec.MaxRestarts; most != nil && s.restartCount > *most && m.pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		m.t.Fatalf("container %s is restarted for the %dth time, %d are allowed", s.container.Name, s.restartCount, *most)
	}
	state := runtimeRunning
	if m.interrupted {
		m.interrupted, state = false, runtimeCreated
	} else {
		m.started[epochName{s.epoch, s.container.Name}]++
	}
	if s.crash != nil {
		set(&m.mem.crash, s.container.Name, *s.crash)
	}
	m.next++
	m.seen.containers = append(m.seen.containers, &container{sandboxID: sandbox, ContainerStatus: &runtimeapi.ContainerStatus{
		Id: fmt.Sprint("c", m.next), CreatedAt: int64(m.next), StartedAt: m.now.UnixNano(), State: state,
		Metadata: &runtimeapi.ContainerMetadata{Name: s.container.Name}, Annotations: containerAnnotations(m.pod, s),
	}})
	if state == runtimeCreated && m.withSandbox {
		m.stopSandbox(sandbox)
	}
}

func (m *model) mainIn(sandbox string, epoch int32) bool {
	for i := range m.pod.Spec.Containers {
		if c := m.seen.latestIn(sandbox, m.pod.Spec.Containers[i].Name); c != nil && c.epoch() == epoch {
			return true
		}
	}
	return false
}

// check is what must hold at rest.
func (m *model) check() {
	for i := range m.pod.Spec.Containers {
		for started, times := range m.started {
			if name := m.pod.Spec.Containers[i].Name; m.pod.Spec.RestartPolicy == corev1.RestartPolicyNever && started.name == name && times > 1 {
				m.t.Fatalf("container %s with restartPolicy Never was started %d times in epoch %d", name, times, started.epoch)
			}
		}
	}
	m.checkRestartOfAll()
	phase := m.pod.Status.Phase
	if podstate.IsTerminal(phase) && m.seen.anyRuns() {
		m.t.Fatalf("the pod is %s and something runs", phase)
	}
	if podstate.IsTrue(m.pod.Status.Conditions, corev1.PodReady) && phase != corev1.PodRunning {
		m.t.Fatalf("the pod is ready and %s", phase)
	}
}

// checkRestartOfAll looks at a pod that is at rest although a container has asked for a restart of all: it may only wait for a back-off, with
// nothing running.
func (m *model) checkRestartOfAll() {
	s := situation{pod: m.pod, seen: &m.seen, mem: &m.mem, now: m.now}.inEpoch()
	told := podstate.IsTrue(m.pod.Status.Conditions, corev1.AllContainersRestarting)
	if ended := m.pod.DeletionTimestamp != nil || podstate.IsTerminal(m.pod.Status.Phase); len(s.asked) == 0 || ended {
		if told && !ended {
			m.t.Fatal("a restart of all is told that nobody has asked for")
		}
		return
	}
	p := makePlan(s)
	if m.seen.anyRuns() || p.wake.IsZero() || !told {
		m.t.Fatalf("a restart of all is asked for, and nothing happens; told: %v, wakes: %v", told, p.wake)
	}
}

// end deletes the pod: it must go, whatever happened before.
func (m *model) end() {
	if m.pod.DeletionTimestamp == nil {
		m.pod.DeletionTimestamp = &metav1.Time{Time: m.now}
	}
	m.settle()
	if len(m.seen.sandboxes)+len(m.seen.containers) > 0 {
		m.t.Fatalf("%d sandboxes and %d containers are left", len(m.seen.sandboxes), len(m.seen.containers))
	}
}

func (m *model) running() []*container {
	var out []*container
	for _, c := range m.seen.containers {
		if c.running() {
			out = append(out, c)
		}
	}
	return out
}

func (m *model) someEnds(t *rapid.T) {
	if list := m.running(); len(list) > 0 {
		m.exit(rapid.SampledFrom(list).Draw(t, "container"), rapid.Int32Range(0, 2).Draw(t, "code"))
	}
}

func (m *model) someUnhealthy(t *rapid.T) {
	if list := m.running(); len(list) > 0 {
		set(&m.mem.probed, rapid.SampledFrom(list).Draw(t, "container").Id, probeResults{started: true, livenessFailed: true})
	}
}

func (m *model) sandboxDies(*rapid.T) {
	for _, s := range m.seen.sandboxes {
		m.stopSandbox(s.Id)
	}
}

func (m *model) timePasses(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
}

func (m *model) agentForgets(*rapid.T) { m.mem = memory{} }

func (m *model) exit(c *container, code int32) {
	m.next++ // No two ends are at the same time.
	c.State, c.ExitCode, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, m.now.UnixNano()+int64(m.next)
}

func (m *model) stopSandbox(id string) {
	for _, s := range m.seen.sandboxes {
		if s.Id == id {
			s.State, s.Network = runtimeapi.PodSandboxState_SANDBOX_NOTREADY, nil
		}
	}
	for _, c := range m.seen.containers {
		if c.sandboxID == id && c.running() {
			m.exit(c, 137)
		}
	}
}

func (m *model) remove(is func(*container) bool) {
	var kept []*container
	for _, c := range m.seen.containers {
		if is(c) && c.running() {
			m.t.Fatalf("container %s is removed while it runs", c.Id)
		}
		if !is(c) {
			kept = append(kept, c)
		}
	}
	m.seen.containers = kept
}
