// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
	"github.com/pinnace-dev/pinnace/internal/setup"
	"github.com/pinnace-dev/pinnace/internal/volume"
	"github.com/pinnace-dev/pinnace/test/env"
	"github.com/pinnace-dev/pinnace/test/node"
)

// cgroupRoot is the parent of the suite's pods.
var cgroupRoot = fmt.Sprintf("/pinnace-agent-test-%d", os.Getpid())

const testImage = "registry.test/testprog:1"

// window is how long the agent holds back a status that may be followed by another one soon. What takes longer, as on a busy machine, is
// told in several: the count of writes is judged by the time that passed.
const window = 700 * time.Millisecond

// startWrites are how many status writes a start may take: that it is Ready and, when it isn't at once, that it was seen; beyond the window
// also that it has a sandbox.
func startWrites(took time.Duration) int64 {
	if took < window {
		return 2
	}
	return 3
}

// world is an API server and one node with an agent.
type world struct {
	t         *testing.T
	env       *env.Env
	client    client.Client
	node      string
	namespace string
	runtime   runtime.Service
	real      *node.Node
	fake      *fake.Runtime
	volumes   *volume.Manager
	agent     *agent.Reconciler
	manifests string
	meter     *meter

	statusWrites, patches atomic.Int64
	stop                  context.CancelFunc
	done                  chan error
}

func TestMain(m *testing.M) { os.Exit(env.Main(m, env.WithScheme(setup.NewScheme()))) }

// newWorld makes the world without starting its agent.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	e := env.Start(t)
	w := &world{t: t, env: e, client: e.Client, node: name, namespace: e.Namespace(t)}
	return w
}

func fakeWorld(t *testing.T) *world {
	w := newWorld(t, "fake-1")
	w.fake = fake.New(fake.Options{})
	w.runtime = w.fake
	w.start()
	return w
}

func realWorld(t *testing.T) *world {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	assets := filepath.Join(root, "bin", "assets")
	if err := node.Prerequisites(assets); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		fmt.Fprintf(os.Stderr, "SKIPPED %s: %v\n", t.Name(), err)
		t.Skip(err)
	}
	w := newWorld(t, "real-1")
	w.real, err = node.Start(t.Context(), node.Options{Assets: assets, Bridge: "pnagent0", PodCIDR: "10.214.1.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.real.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		removeCgroups(t)
	})
	program := filepath.Join(t.TempDir(), "testprog")
	build := exec.Command("go", "build", "-o", program, "./testprog")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test's program: %v\n%s", err, out)
	}
	if err := w.real.LoadProgram(t.Context(), program, testImage); err != nil {
		t.Fatal(err)
	}
	if w.volumes, err = volume.New(filepath.Join(w.real.Dir, "agent")); err != nil {
		t.Fatal(err)
	}
	w.runtime = w.real.CRI
	w.start()
	return w
}

// removeCgroups removes the parent of the pods' cgroups, in which nothing may be left but by a story that failed.
func removeCgroups(t *testing.T) {
	if t.Failed() {
		if err := node.RemoveCgroups(strings.TrimPrefix(cgroupRoot, "/")); err != nil {
			t.Log(err)
		}
		return
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*" + cgroupRoot, "/sys/fs/cgroup" + cgroupRoot} {
		trees, err := filepath.Glob(pattern)
		if err != nil {
			t.Error(err)
		}
		for _, tree := range trees {
			for _, dir := range []string{"besteffort", "burstable", ""} {
				if err := syscall.Rmdir(filepath.Join(tree, dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("removing the suite's cgroup %s: %v", filepath.Join(tree, dir), err)
				}
			}
		}
	}
}

// quiet logs errors alone: what a manager tells of its starts and stops hides what failed.
func quiet(t *testing.T) logr.Logger {
	return testr.NewWithOptions(t, testr.Options{Verbosity: -1})
}

// start starts an agent; a restart is stopAgent and start.
func (w *world) start() {
	w.t.Helper()
	mgr, err := ctrl.NewManager(w.env.Config, ctrl.Options{
		Scheme:  setup.NewScheme(),
		Metrics: metricsserver.Options{BindAddress: "0"},
		Logger:  quiet(w.t),
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&pcorev1.Pod{}: {Field: fields.OneTermEqualSelector("spec.nodeName", w.node)},
		}},
		Controller: config.Controller{SkipNameValidation: new(true)},
		NewClient: func(c *rest.Config, o client.Options) (client.Client, error) {
			inner, err := kube.NewClient(c, o)
			if err != nil {
				return nil, err
			}
			return countingClient{Client: inner, w: w}, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	reconciler := agent.NewReconciler(mgr.GetClient(), agent.Options{
		References: mgr.GetAPIReader(), Events: mgr.GetEventRecorder("pinnace-agent"), Refresh: 2 * time.Second, Window: window,
	})
	if w.manifests == "" {
		w.manifests = w.t.TempDir()
	}
	n := agent.Node{Name: w.node, StaticPodDir: w.manifests, Runtime: w.runtime, HostIPs: []string{"192.0.2.1"}, Simulated: w.fake != nil}
	if w.real != nil {
		n.Volumes, n.LogDir, n.CgroupRoot, n.Parallel = w.volumes, filepath.Join(w.real.Dir, "logs"), cgroupRoot, 4
	}
	if w.real != nil {
		profile, err := runtime.WriteSandboxProfile(w.real.Dir)
		if err != nil {
			w.t.Fatal(err)
		}
		n.SandboxProfile = profile
		n.PullProgress = setup.PullProgress(w.real.CRI)
	}
	if w.real != nil {
		w.guard(w.t, &n)
	}
	if err := reconciler.AddNode(n); err != nil {
		w.t.Fatal(err)
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		w.t.Fatal(err)
	}
	w.agent = reconciler
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan error, 1)
	logged := logf.IntoContext(ctx, quiet(w.t))
	reconciler.LoadStatic(logged)
	go reconciler.RunStatic(logged)
	go func() { w.done <- mgr.Start(ctx) }()
	w.t.Cleanup(w.stopAgent)
}

func (w *world) stopAgent() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	if err := <-w.done; err != nil {
		w.t.Errorf("the agent ended with: %v", err)
	}
}

// countingClient counts what the agent writes.
type countingClient struct {
	client.Client
	w *world
}

func (c countingClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	c.w.patches.Add(1)
	return c.Client.Patch(ctx, obj, patch, opts...)
}

func (c countingClient) Status() client.SubResourceWriter {
	return countingWriter{SubResourceWriter: c.Client.Status(), w: c.w}
}

type countingWriter struct {
	client.SubResourceWriter
	w *world
}

func (c countingWriter) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	c.w.statusWrites.Add(1)
	return c.SubResourceWriter.Update(ctx, obj, opts...)
}

// pod makes a bound pod that runs the test's program with the arguments.
func (w *world) pod(name string, args ...string) *pcorev1.Pod {
	grace := int64(1)
	return &pcorev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Finalizers: []string{agent.Finalizer}},
		Spec: pcorev1.PodSpec{PodSpec: corev1.PodSpec{
			NodeName:                      w.node,
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "main", Image: testImage, Args: args}},
		}},
	}
}

func (w *world) create(t *testing.T, pod *pcorev1.Pod) *pcorev1.Pod {
	t.Helper()
	if err := w.client.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// until waits for a pod's state.
func (w *world) until(t *testing.T, pod *pcorev1.Pod, what string, is func(*pcorev1.Pod) bool) *pcorev1.Pod {
	t.Helper()
	var got *pcorev1.Pod
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		got = &pcorev1.Pod{}
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(pod), got); apierrors.IsNotFound(err) {
			got = nil
		} else if err != nil {
			return false, err
		}
		return is(got), nil
	})
	if err != nil {
		t.Fatalf("pod %s is not %s within a minute (%v); it is:\n%s", pod.Name, what, err, describe(got))
	}
	return got
}

func describe(pod *pcorev1.Pod) string {
	if pod == nil {
		return "not there"
	}
	text, err := yaml.Marshal(pod)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (w *world) delete(t *testing.T, pod *pcorev1.Pod) {
	t.Helper()
	if err := w.client.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

func (w *world) get(t *testing.T, pod *pcorev1.Pod, path string) string {
	t.Helper()
	return w.getAt(t, pod, "8080", path)
}

func (w *world) getAt(t *testing.T, pod *pcorev1.Pod, port, path string) string {
	t.Helper()
	response, err := (&http.Client{Timeout: 3 * time.Second}).Get("http://" + pod.Status.PodIP + ":" + port + path)
	if err != nil {
		return "error: " + err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(body)
}
