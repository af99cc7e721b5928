// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// disturbances change the machine under its pods, so they run alone, each with pods of its own.
var disturbances = []struct {
	name string
	run  func(t *testing.T, w *world) error
}{
	{"a restart of the agent leaves containers running and writes nothing anew", disturbAgentRestart},
	{"an agent that is killed adopts what it finds", disturbAgentKilled},
	{"a pod that is deleted while the agent is down is stopped by the next", disturbDeletedMeanwhile},
	{"a pod that ends while the agent is down is told by the next", disturbEndedMeanwhile},
	{"a pod that is made while the agent is down is run by the next", disturbMadeMeanwhile},
	{"a restart of all containers that is asked for while the agent is down comes once", disturbRestartAll},
	{"readiness holds over a restart of the agent", disturbReadiness},
	{"a restart of containerd leaves containers running", disturbRuntimeRestart},
	{"containerd is killed, and a pod is made meanwhile", disturbRuntimeKilled},
	{"a killed shim is a container that failed, and it is restarted", disturbShim},
	{"a killed pause process is another sandbox", disturbPause},
	{"agent and containerd are killed together", disturbBoth},
	{"what a killed containerd has forgotten is ended, and nothing else", disturbForgotten},
	{"a full disk keeps a pod waiting with a word, until there is room", disturbFullDisk},
	{"a container's files on a full disk are told", disturbFullDiskLogs},
	{"a static pod follows its file, and neither its mirror's end nor the agent's touches it", disturbStatic},
	{"files of static pods that change while the agent is down are followed by the next", disturbStaticMeanwhile},
	{"a node that shuts down ends its pods, critical ones last, and is as before at the next start", disturbShutdown},
	{"a log is rotated while it is written and read, and old ones go", disturbLogs},
	{"pods go for their node's disk in upstream's order, until it has room", disturbDisk},
	{"pods go for what they use of the memory together, and no more than is needed", disturbMemory},
	{"pods go for the threads that they have, after the grace of a soft threshold", disturbPIDs},
	{"images go when the disk is full, but for those that are used or pinned", disturbImages},
}

// start makes a pod of one case and waits until it is Ready; the returned function ends it.
func (w *world) start(t *testing.T, text string) (*caseRun, func() error, error) {
	t.Helper()
	c := parseCase(t, text)
	r, err := w.begin(t, &c)
	if err != nil {
		return nil, nil, err
	}
	return r, func() error { return r.end(t, c) }, nil
}

const sleeper = `{pod: {containers: [{args: [sleep]}]}}`

// around starts a pod, disturbs, and looks at what holds then; the pod is ended in any case.
func (w *world) around(t *testing.T, text, before string, disturb func(ctx context.Context, r *caseRun) error, after string) error {
	t.Helper()
	r, end, err := w.start(t, text)
	if err != nil {
		return err
	}
	if before != "" {
		err = r.until(t.Context(), before, patience)
	}
	if err == nil {
		err = disturb(t.Context(), r)
	}
	if err == nil && after != "" {
		err = r.until(t.Context(), after, patience)
	}
	return errors.Join(err, end())
}

// restartAgent stops the agent in order and starts it.
func (w *world) restartAgent(ctx context.Context) error {
	return errors.Join(w.stopAgent(ctx), w.runAgent(ctx))
}

// lookedAt waits until the agent has run another pod, and so has looked at all.
func (w *world) lookedAt(t *testing.T) error {
	t.Helper()
	_, end, err := w.start(t, sleeper)
	if err != nil {
		return err
	}
	return end()
}

func disturbAgentRestart(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(ctx context.Context, r *caseRun) error {
		id, version := r.last.Status.ContainerStatuses[0].ContainerID, r.last.ResourceVersion
		if err := errors.Join(w.restartAgent(ctx), w.lookedAt(t), r.look(ctx)); err != nil {
			return err
		}
		if r.last.ResourceVersion != version || r.last.Status.ContainerStatuses[0].ContainerID != id {
			return fmt.Errorf("the pod was not left alone%s", r.explain(nil))
		}
		return nil
	}, "")
}

func disturbAgentKilled(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(ctx context.Context, r *caseRun) error {
		id := r.last.Status.ContainerStatuses[0].ContainerID
		if err := errors.Join(w.killAgent(ctx), w.runAgent(ctx), w.lookedAt(t), r.look(ctx)); err != nil {
			return err
		}
		if r.last.Status.ContainerStatuses[0].ContainerID != id {
			return fmt.Errorf("the container was started anew%s", r.explain(nil))
		}
		return nil
	}, "c.main.restartCount == 0 && is.Ready == 'True'")
}

func disturbDeletedMeanwhile(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(ctx context.Context, r *caseRun) error {
		return errors.Join(w.killAgent(ctx), r.step(t, &step{Delete: true}), w.runAgent(ctx))
	}, "gone")
}

func disturbEndedMeanwhile(t *testing.T, w *world) error {
	text := `{pod: {restartPolicy: Never, volumes: [{name: v, hostPath: {path: $HOST}}], containers: [{args: [do, await /v/go, exit 5 bye], volumeMounts: [{name: v, mountPath: /v}]}]}}`
	return w.around(t, text, ready, func(ctx context.Context, r *caseRun) error {
		if err := errors.Join(w.killAgent(ctx), r.step(t, &step{Touch: "go"}), w.awaitExit(ctx, r)); err != nil {
			return err
		}
		return w.runAgent(ctx)
	}, "status.phase == 'Failed' && c.main.state.terminated.exitCode == 5 && c.main.state.terminated.message == 'bye'")
}

const restarter = `
host: {init: ""}
pod:
  restartPolicy: Never
  volumes: [{name: v, hostPath: {path: $HOST}}]
  initContainers:
  - {name: one, args: [do, write /v/log one, await /v/init], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: side, restartPolicy: Always, args: [sleep]}
  containers:
  - {name: main, args: [do, await /v/go, once /v/asked 42, sleep], restartPolicy: Never, volumeMounts: [{name: v, mountPath: /v}],
     restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}
  - {name: other, args: [sleep]}
`

// disturbRestartAll kills the agent twice: before main asks for a restart of all, and while the init container runs again.
func disturbRestartAll(t *testing.T, w *world) error {
	return w.around(t, restarter, ready, func(ctx context.Context, r *caseRun) error {
		err := errors.Join(w.killAgent(ctx), os.Remove(filepath.Join(r.host, "init")), r.step(t, &step{Touch: "go"}), w.runAgent(ctx),
			r.until(ctx, "c.one.restartCount == 1 && state.one == 'running'", patience))
		return errors.Join(err, w.killAgent(ctx), r.step(t, &step{Touch: "init"}), w.runAgent(ctx), w.lookedAt(t))
	}, "is.Ready == 'True' && [c.one, c.side, c.main, c.other].all(x, x.restartCount == 1) && file('log') == 'one\\none' && is.AllContainersRestarting == 'False'")
}

func disturbMadeMeanwhile(t *testing.T, w *world) error {
	if err := w.killAgent(t.Context()); err != nil {
		return err
	}
	c := parseCase(t, sleeper)
	r, err := w.begin(t, &c)
	if err = errors.Join(err, w.runAgent(t.Context())); err != nil {
		return err
	}
	return errors.Join(r.until(t.Context(), ready, patience), r.end(t, c))
}

func disturbReadiness(t *testing.T, w *world) error {
	text := `{pod: {containers: [{args: [sleep], readinessProbe: {exec: {command: [/testprog, id]}, periodSeconds: 1, timeoutSeconds: 10}}]}}`
	return w.around(t, text, ready, func(ctx context.Context, r *caseRun) error {
		since := transition(r)
		if err := errors.Join(w.restartAgent(ctx), w.lookedAt(t), r.look(ctx)); err != nil {
			return err
		}
		if transition(r) != since {
			return fmt.Errorf("Ready was lost and found%s", r.explain(nil))
		}
		return nil
	}, ready)
}

func transition(r *caseRun) string {
	for _, c := range r.last.Status.Conditions {
		if c.Type == "Ready" {
			return c.LastTransitionTime.String()
		}
	}
	return ""
}

func disturbRuntimeRestart(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(ctx context.Context, r *caseRun) error {
		return errors.Join(w.node.Restart(ctx, syscall.SIGTERM), w.lookedAt(t), r.look(ctx))
	}, "c.main.restartCount == 0 && is.Ready == 'True' && exec('main', 'print alive') == 'alive'")
}

func disturbRuntimeKilled(t *testing.T, w *world) error {
	c := parseCase(t, sleeper)
	return w.around(t, sleeper, ready, func(ctx context.Context, _ *caseRun) error {
		var made *caseRun
		err := w.node.RestartAfter(ctx, syscall.SIGKILL, func() (err error) {
			made, err = w.begin(t, &c)
			return err
		})
		if err != nil {
			return err
		}
		return errors.Join(made.until(ctx, ready, patience), made.end(t, c))
	}, "c.main.restartCount == 0 && is.Ready == 'True' && exec('main', 'print alive') == 'alive'")
}

func disturbShim(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(_ context.Context, r *caseRun) error {
		shims, err := w.shimsOf(r.pod)
		if err != nil || len(shims) == 0 {
			return fmt.Errorf("finding the pod's shim: %v %w", shims, errors.Join(err))
		}
		return syscall.Kill(shims[0], syscall.SIGKILL)
	}, "is.Ready == 'True' && c.main.restartCount >= 1 && exec('main', 'print alive') == 'alive'")
}

func disturbPause(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(_ context.Context, r *caseRun) error {
		for _, pid := range w.processesOf(r.pod) {
			if commandName(pid) == "pause" {
				return syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return errors.New("the pod has no pause process")
	}, "is.Ready == 'True' && c.main.restartCount >= 1 && exec('main', 'print alive') == 'alive'")
}

func disturbBoth(t *testing.T, w *world) error {
	return w.around(t, sleeper, ready, func(ctx context.Context, r *caseRun) error {
		return errors.Join(w.killAgent(ctx), w.node.Restart(ctx, syscall.SIGKILL), w.runAgent(ctx), w.lookedAt(t), r.look(ctx))
	}, "c.main.restartCount == 0 && is.Ready == 'True'")
}

// disturbFullDisk lays a file system without room over the folder of the pods' volumes.
func disturbFullDisk(t *testing.T, w *world) error {
	pods := filepath.Join(w.dataDir(), "pods")
	if err := mountFull(pods); err != nil {
		return err
	}
	c := parseCase(t, `{pod: {volumes: [{name: v, emptyDir: {}}], containers: [{args: [sleep], volumeMounts: [{name: v, mountPath: /v}]}]}}`)
	r, err := w.begin(t, &c)
	if err == nil {
		err = r.until(t.Context(), "c.main.state.waiting.message.contains('no space left on device')", patience)
	}
	if err = errors.Join(err, unix.Unmount(pods, unix.MNT_DETACH)); err != nil {
		return err
	}
	return errors.Join(r.until(t.Context(), ready, patience), r.end(t, c))
}

// disturbFullDiskLogs does so with the folder of the logs.
func disturbFullDiskLogs(t *testing.T, w *world) error {
	logs := filepath.Join(w.dataDir(), "log")
	if err := mountFull(logs); err != nil {
		return err
	}
	c := parseCase(t, sleeper)
	r, err := w.begin(t, &c)
	if err == nil {
		err = r.until(t.Context(), "status.conditions.exists(x, x.type == 'PodReadyToStartContainers' && x.status == 'False' && x.message.contains('no space left on device'))", patience)
	}
	if err = errors.Join(err, unix.Unmount(logs, unix.MNT_DETACH)); err != nil {
		return err
	}
	return errors.Join(r.until(t.Context(), ready, patience), r.end(t, c))
}

// mountFull lays a file system over a folder in which nothing can be made.
func mountFull(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,nr_inodes=1,mode=0755"); err != nil {
		return fmt.Errorf("mounting a small file system: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err == nil || !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(fmt.Errorf("the small file system has room: %w", err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

func commandName(pid int) string {
	text, err := read(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}
