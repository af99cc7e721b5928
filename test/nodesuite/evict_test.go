// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/node/lifecycle"
	"github.com/pinnace-dev/pinnace/internal/machine"
	"github.com/pinnace-dev/pinnace/internal/setup"
)

// Node-pressure eviction: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/

const (
	evicted = "status.phase == 'Failed' && status.reason == 'Evicted' && is.DisruptionTarget == 'True' && why.DisruptionTarget == 'TerminationByKubelet'"
	lives   = "is.Ready == 'True' && c.main.restartCount == 0"
)

// looksOften has the agent look at its node each second, and forget a pressure after that long.
func looksOften(o *setup.AgentOptions, transition time.Duration) {
	o.Resources.LookEvery, o.Resources.Eviction.Transition = time.Second, transition
}

// filling is a pod that has filled an emptyDir with so many MiB once it is Ready.
func filling(mib int, spec, container string) string {
	return fmt.Sprintf(`{pod: {%s volumes: [{name: v, emptyDir: {}}], containers: [{args: [do, fill /v/x %d, write /v/full x, sleep], %s
  readinessProbe: {exec: {command: [/testprog, exists, /v/full]}, periodSeconds: 1, timeoutSeconds: 10}, volumeMounts: [{name: v, mountPath: /v}]}]}}`, spec, mib, container)
}

// disturbDisk gives the agent a disk of 64 MiB, of which pods have 30 and a file of nobody 24. When 48 are to be free, all that may go have to:
// first those above their requests, the less important one before, then the one below. When the file has gone, the node has room again.
func disturbDisk(t *testing.T, w *world) error {
	return w.onSmallDisk(t.Context(), func(ctx context.Context) error {
		g := w.group(t)
		return errors.Join(w.runOutOfDisk(ctx, t, g), g.end())
	})
}

func (w *world) runOutOfDisk(ctx context.Context, t *testing.T, g *podGroup) error {
	roomy := w.options
	roomy.Resources.Eviction.Hard = nil
	tight := w.options
	looksOften(&tight, time.Second)
	tight.Resources.Eviction.Hard = []string{"nodefs.available<48Mi"}
	stop, err := w.runLifecycle(t)
	if err != nil {
		return err
	}
	defer stop()
	if err := w.restartWith(ctx, roomy); err != nil {
		return err
	}
	pods, err := g.startReady(filling(8, "", ""), filling(6, "priority: 1000,", ""), filling(14, "", "resources: {requests: {ephemeral-storage: 16Mi}},"), filling(2, critical, ""))
	if err != nil {
		return err
	}
	file := filepath.Join(w.dataDir(), "file-of-nobody")
	if err := errors.Join(os.WriteFile(file, make([]byte, 24<<20), 0o600), w.restartWith(ctx, tight)); err != nil {
		return err
	}
	greedy, spared := pods[0], pods[3]
	err = errors.Join(goInOrder(ctx, pods[:3]), w.nodeIs(ctx, "DiskPressure", "True"), w.tainted(ctx, corev1.TaintNodeDiskPressure, true), spared.holds(ctx, lives),
		greedy.holds(ctx, "status.message.startsWith('The node was low on resource: ephemeral-storage. Threshold quantity: 48Mi, available: ')"), w.givenBack(ctx, greedy))
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(file), w.nodeIs(ctx, "DiskPressure", "False"), w.tainted(ctx, corev1.TaintNodeDiskPressure, false), w.lookedAt(t), spared.holds(ctx, lives))
}

// onSmallDisk lays a file system of 64 MiB over the agent's folder while something is done. The agent is started by who is called.
func (w *world) onSmallDisk(ctx context.Context, do func(ctx context.Context) error) error {
	if err := w.stopAgent(ctx); err != nil {
		return err
	}
	err := unix.Mount("tmpfs", w.dataDir(), "tmpfs", 0, "size=64m,mode=0755")
	if err == nil {
		err = errors.Join(do(ctx), w.stopAgent(ctx), unix.Unmount(w.dataDir(), unix.MNT_DETACH))
	}
	return errors.Join(err, w.restartWith(context.WithoutCancel(ctx), w.options))
}

// goInOrder waits until all of them are evicted, none before those that stand before it.
func goInOrder(ctx context.Context, runs []*caseRun) error {
	return poll(ctx, patience, func(ctx context.Context) error {
		last := len(runs) - 1
		for i := last; i > 0; i-- {
			if runs[i].holds(ctx, evicted) != nil {
				continue
			}
			// It was looked at first: what stands before it must have gone earlier.
			if err := runs[i-1].holds(ctx, evicted); err != nil {
				return fatal{fmt.Errorf("number %d was evicted before number %d: %w", i+1, i, err)}
			}
			if i == last {
				return nil
			}
		}
		return runs[last].holds(ctx, evicted)
	})
}

// givenBack waits until the node has nothing on disk of a pod that is still there.
func (w *world) givenBack(ctx context.Context, r *caseRun) error {
	return poll(ctx, patience, func(context.Context) error {
		_, err := os.Stat(w.podDir(r.pod))
		switch {
		case err == nil:
			return errors.New("the evicted pod has its folder still")
		case errors.Is(err, fs.ErrNotExist):
			return nil
		}
		return err
	})
}

// runLifecycle runs the manager's controller that taints nodes.
func (w *world) runLifecycle(t *testing.T) (stop func(), err error) {
	t.Helper()
	mgr, err := ctrl.NewManager(w.env.Config, ctrl.Options{
		Scheme: setup.NewScheme(), Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("making a manager: %w", err)
	}
	if err := lifecycle.NewReconciler(mgr.GetClient(), lifecycle.Options{}).SetupWithManager(mgr); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended: %v", err)
		}
	}, nil
}

// tainted waits until the node has a taint or hasn't.
func (w *world) tainted(ctx context.Context, key string, want bool) error {
	return poll(ctx, patience, func(ctx context.Context) error {
		var n pcorev1.Node
		if err := w.client.Get(ctx, types.NamespacedName{Name: nodeName}, &n); err != nil {
			return err
		}
		if has := slices.ContainsFunc(n.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == key }); has != want {
			return fmt.Errorf("the node's taints are %v; %s wanted: %v", n.Spec.Taints, key, want)
		}
		return nil
	})
}

// disturbMemory lets pods have 300 MiB together, of which 100 are to be free, when they use more than 200: one goes, who is the farthest above
// the request among the least important, and that is enough.
func disturbMemory(t *testing.T, w *world) error {
	g := w.group(t)
	err := w.runOutOfMemory(t, g)
	return errors.Join(err, g.end())
}

func (w *world) runOutOfMemory(t *testing.T, g *podGroup) error {
	var n pcorev1.Node
	if err := w.client.Get(t.Context(), types.NamespacedName{Name: nodeName}, &n); err != nil {
		return err
	}
	eating := func(mib int, spec, container string) string {
		return fmt.Sprintf(`{pod: {%s containers: [{args: [do, eat %d], %s}]}}`, spec, mib, container)
	}
	pods, err := g.startReady(eating(130, "", ""), eating(30, "priority: 1000,", ""), eating(50, "", "resources: {requests: {memory: 80Mi}}"))
	if err != nil {
		return err
	}
	// They print when they have eaten.
	if err := allUntil(t.Context(), "log('main') != ''", pods...); err != nil {
		return err
	}
	tight := func(o *setup.AgentOptions) {
		looksOften(o, 8*time.Second) // Long enough for the pressure to be seen, which goes with the first pod.
		reserved := n.Status.Capacity.Memory().Value() - 300<<20
		o.Resources.KubeReserved = map[string]string{"memory": fmt.Sprint(reserved)}
		o.Resources.Eviction.Hard = []string{"memory.available<100Mi"}
	}
	return w.withOptions(t.Context(), tight, func(ctx context.Context) error {
		greedy, others := pods[0], pods[1:]
		err := errors.Join(w.nodeIs(ctx, "MemoryPressure", "True"), greedy.until(ctx, evicted, patience), greedy.holds(ctx, "status.message.startsWith('The node was low on resource: memory. Threshold quantity: 100Mi, available: ')"))
		if err != nil {
			return err
		}
		// Nobody else has gone before that is over.
		return errors.Join(w.nodeIs(ctx, "MemoryPressure", "False"), w.lookedAt(t), others[0].holds(ctx, lives), others[1].holds(ctx, lives))
	})
}

// since when a condition of the node is as it is.
func (w *world) since(ctx context.Context, kind corev1.NodeConditionType) (time.Time, error) {
	var n pcorev1.Node
	if err := w.client.Get(ctx, types.NamespacedName{Name: nodeName}, &n); err != nil {
		return time.Time{}, err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == kind {
			return c.LastTransitionTime.Time, nil
		}
	}
	return time.Time{}, fmt.Errorf("the node has no condition %s", kind)
}

// disturbPIDs has pods with 1000 and 1500 threads, the latter more important, when 2000 of the machine's are one too many: after the soft threshold's
// grace the less important one goes, though it has fewer, and that is enough. Others on the machine may have 500 more or fewer meanwhile.
func disturbPIDs(t *testing.T, w *world) error {
	g := w.group(t)
	return errors.Join(w.runOutOfPIDs(t, g), g.end())
}

func (w *world) runOutOfPIDs(t *testing.T, g *podGroup) error {
	used, most, err := machine.PIDs()
	if err != nil {
		return err
	}
	threads := func(n int, spec string) string {
		return fmt.Sprintf(`{pod: {%s containers: [{args: [threads, "%d"]}]}}`, spec, n)
	}
	pods, err := g.startReady(threads(1000, ""), threads(1500, "priority: 1000,"), threads(0, ""))
	if err != nil {
		return err
	}
	const grace = 3 * time.Second
	soft := func(o *setup.AgentOptions) {
		looksOften(o, 8*time.Second)
		o.Resources.Eviction.Hard = nil
		o.Resources.Eviction.Soft = []string{fmt.Sprintf("pid.available<%d", most-used-2000)}
		o.Resources.Eviction.SoftGrace = []string{"pid.available=" + grace.String()}
	}
	return w.withOptions(t.Context(), soft, func(ctx context.Context) error {
		many, others := pods[0], pods[1:]
		if err := w.nodeIs(ctx, "PIDPressure", "True"); err != nil {
			return err
		}
		told, err := w.since(ctx, "PIDPressure")
		if err != nil {
			return err
		}
		err = errors.Join(many.until(ctx, evicted, patience), many.holds(ctx, "status.message.startsWith('The node was low on resource: pids. Threshold quantity: ')"))
		if err != nil {
			return err
		}
		// By the agent's own clock, whose times are whole seconds.
		for _, c := range many.last.Status.Conditions {
			if took := c.LastTransitionTime.Sub(told); c.Type == corev1.DisruptionTarget && took < grace-time.Second {
				return fmt.Errorf("it was evicted %s after the pressure began: the grace is %s", took, grace)
			}
		}
		return errors.Join(w.nodeIs(ctx, "PIDPressure", "False"), w.lookedAt(t), others[0].holds(ctx, lives), others[1].holds(ctx, lives))
	})
}
