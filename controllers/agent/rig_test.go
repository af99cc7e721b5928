// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	fakeclient "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

// rig is an agent with one simulated node, an API server in memory, and a clock that the test moves.
type rig struct {
	t       *testing.T
	client  client.Client
	agent   *Reconciler
	runtime *fake.Runtime
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
	later   map[types.NamespacedName]time.Time

	mu     sync.Mutex
	now    time.Time
	writes []string
}

func newRig(t *testing.T, objects ...client.Object) *rig {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, pcorev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{t: t, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), later: map[types.NamespacedName]time.Time{}}
	r.client = fakeclient.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&pcorev1.Pod{}).WithObjects(objects...).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
				r.note("PUT " + sub)
				return c.SubResource(sub).Update(ctx, obj, opts...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
				r.note("PATCH")
				return c.Patch(ctx, obj, patch, opts...)
			},
		}).Build()
	r.runtime = fake.New(fake.Options{Now: r.clock})
	r.restart()
	return r
}

// restart makes a new agent that knows nothing, on the same runtime.
func (r *rig) restart() {
	r.t.Helper()
	r.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	r.agent = NewReconciler(r.client, Options{References: r.client, Now: r.clock})
	r.agent.queue = r.queue
	if err := r.agent.AddNode(Node{Name: "node-1", Runtime: r.runtime, HostIPs: []string{"192.0.2.1"}, Simulated: true}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) note(write string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, write)
}

func (r *rig) written() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.writes
	r.writes = nil
	return out
}

// pass moves the clock and wakes the pods that asked to be woken by then.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	r.mu.Lock()
	r.now = r.now.Add(d)
	now := r.now
	r.mu.Unlock()
	for key, at := range r.later {
		if !at.After(now) {
			delete(r.later, key)
			r.agent.wake(key)
		}
	}
	r.settle()
}

// settle reconciles until the queue is empty and no pull runs.
func (r *rig) settle(keys ...types.NamespacedName) {
	r.t.Helper()
	for _, key := range keys {
		r.agent.wake(key)
	}
	for range 1000 {
		for _, node := range r.agent.nodes {
			node.puller.wait.Wait()
		}
		r.agent.jobs.Wait()
		if r.queue.Len() == 0 {
			return
		}
		req, _ := r.queue.Get()
		result, err := r.agent.Reconcile(r.t.Context(), req)
		r.queue.Done(req)
		if err != nil {
			r.t.Fatalf("Reconcile(%s): %v", req, err)
		}
		if result.RequeueAfter > 0 {
			r.later[req.NamespacedName] = r.clock().Add(result.RequeueAfter)
		}
	}
	r.t.Fatal("the agent does not settle")
}

func (r *rig) pod(key types.NamespacedName) *pcorev1.Pod {
	r.t.Helper()
	pod := &pcorev1.Pod{}
	if err := r.client.Get(r.t.Context(), key, pod); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		r.t.Fatal(err)
	}
	return pod
}

func (r *rig) create(pod *pcorev1.Pod) types.NamespacedName {
	r.t.Helper()
	if err := r.client.Create(r.t.Context(), pod); err != nil {
		r.t.Fatal(err)
	}
	key := client.ObjectKeyFromObject(pod)
	r.settle(key)
	return key
}

func (r *rig) delete(key types.NamespacedName) {
	r.t.Helper()
	if err := r.client.Delete(r.t.Context(), r.pod(key)); err != nil {
		r.t.Fatal(err)
	}
	r.settle(key)
}

// containerID is the newest container of that name.
func (r *rig) containerID(key types.NamespacedName, name string) string {
	r.t.Helper()
	seen, err := r.agent.node("node-1").observe(r.t.Context(), r.pod(key).UID)
	if err != nil {
		r.t.Fatal(err)
	}
	c := seen.latest(name)
	if c == nil {
		r.t.Fatalf("pod %s has no container %s", key, name)
	}
	return c.Id
}

// exit ends the newest container of that name.
func (r *rig) exit(key types.NamespacedName, name string, code int32) {
	r.t.Helper()
	if !r.runtime.Exit(r.containerID(key, name), code) {
		r.t.Fatalf("container %s of pod %s doesn't run", name, key)
	}
	r.settle(key)
}

// podBuilder makes pods for tests.
type podBuilder struct{ pod *pcorev1.Pod }

func aPod(name string) *podBuilder {
	return &podBuilder{pod: &pcorev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: 1, Finalizers: []string{Finalizer},
		},
		Spec: pcorev1.PodSpec{PodSpec: corev1.PodSpec{
			NodeName:   "node-1",
			Containers: []corev1.Container{{Name: "main", Image: "hello:1"}},
		}},
		Status: pcorev1.PodStatus{PodStatus: corev1.PodStatus{ObservedGeneration: -1}},
	}}
}

func (b *podBuilder) Restart(policy corev1.RestartPolicy) *podBuilder {
	b.pod.Spec.RestartPolicy = policy
	return b
}

func (b *podBuilder) Init(name string) *podBuilder {
	b.pod.Spec.InitContainers = append(b.pod.Spec.InitContainers, corev1.Container{Name: name, Image: name + ":1"})
	return b
}

func (b *podBuilder) Sidecar(name string) *podBuilder {
	always := corev1.ContainerRestartPolicyAlways
	b.pod.Spec.InitContainers = append(b.pod.Spec.InitContainers, corev1.Container{Name: name, Image: name + ":1", RestartPolicy: &always})
	return b
}

func (b *podBuilder) Container(name string) *podBuilder {
	b.pod.Spec.Containers = append(b.pod.Spec.Containers, corev1.Container{Name: name, Image: name + ":1"})
	return b
}

// RestartAll gives the container of that name, or all when it is empty, the rule RestartAllContainers for exit codes; a container that says
// nothing else is otherwise never restarted.
func (b *podBuilder) RestartAll(name string, operator corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) *podBuilder {
	eachContainer(&b.pod.Spec.PodSpec, func(c *corev1.Container) {
		if name != "" && c.Name != name {
			return
		}
		if c.RestartPolicy == nil {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyNever)
		}
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: operator, Values: codes},
		}}
	})
	return b
}

func (b *podBuilder) Change(f func(*pcorev1.Pod)) *podBuilder {
	f(b.pod)
	return b
}

func (b *podBuilder) Obj() *pcorev1.Pod { return b.pod }
