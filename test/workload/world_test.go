// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
	"github.com/pinnace-dev/pinnace/controllers/apps/daemonset"
	"github.com/pinnace-dev/pinnace/controllers/apps/deployment"
	"github.com/pinnace-dev/pinnace/controllers/apps/replicaset"
	"github.com/pinnace-dev/pinnace/controllers/apps/replicationcontroller"
	"github.com/pinnace-dev/pinnace/controllers/apps/statefulset"
	"github.com/pinnace-dev/pinnace/controllers/batch/job"
	"github.com/pinnace-dev/pinnace/controllers/batch/ttl"
	"github.com/pinnace-dev/pinnace/controllers/node/ipam"
	"github.com/pinnace-dev/pinnace/controllers/node/lifecycle"
	"github.com/pinnace-dev/pinnace/controllers/node/podgc"
	"github.com/pinnace-dev/pinnace/controllers/placement"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/test/env"
)

var scheme = runtime.NewScheme()

func TestMain(m *testing.M) {
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, pcorev1.AddToScheme, pappsv1.AddToScheme, pbatchv1.AddToScheme, ppolicyv1.AddToScheme, pstoragev1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	logger := zap.NewNop()
	if os.Getenv("PINNACE_TEST_LOG") != "" {
		logger, _ = zap.NewDevelopment()
	}
	ctrl.SetLogger(zapr.NewLogger(logger))
	os.Exit(env.Main(m, env.WithScheme(scheme), env.WithControllerManager()))
}

// world is an API server with the loops running, for one test in one namespace.
type world struct {
	*testing.T
	client.Client
	ctx       context.Context
	namespace string
	agent     *agent
	// restart stops the loops and starts new ones that know nothing.
	restart func()
}

type options struct {
	// wrap puts something between the loops and the API server.
	wrap  func(client.Client) client.Client
	nodes int
	// cpu is each node's, "4" when empty.
	cpu string
	// lifecycle is how patient the node loop is.
	lifecycle lifecycle.Options
}

// newWorld starts the loops, makes nodes, and stops everything when the test ends.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	e := env.Start(t)
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{T: t, Client: e.Client, ctx: ctx}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "story-"}}
	w.must(e.Client.Create(ctx, ns))
	w.namespace = ns.Name
	if o.lifecycle.Grace == 0 {
		o.lifecycle = lifecycle.Options{Grace: time.Hour, StartupGrace: time.Hour}
	}
	lease := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: lifecycle.LeaseNamespace}}
	if err := e.Client.Create(ctx, lease); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	stop := w.startLoops(e, o)
	w.restart = func() {
		stop()
		stop = w.startLoops(e, o)
	}
	for i := range o.nodes {
		w.node(fmt.Sprintf("%s-node-%d", w.namespace, i), o.cpu)
	}
	w.agent = startAgent(t, ctx, e)
	t.Cleanup(func() {
		var nodes pcorev1.NodeList
		w.must(w.List(ctx, &nodes))
		for i := range nodes.Items {
			w.must(client.IgnoreNotFound(w.Delete(ctx, &nodes.Items[i])))
		}
		w.must(w.DeleteAllOf(ctx, &pappsv1.Deployment{}, client.InNamespace(w.namespace)))
		w.must(w.DeleteAllOf(ctx, &pappsv1.ReplicaSet{}, client.InNamespace(w.namespace)))
		w.must(w.DeleteAllOf(ctx, &pappsv1.DaemonSet{}, client.InNamespace(w.namespace)))
		w.must(w.DeleteAllOf(ctx, &pappsv1.StatefulSet{}, client.InNamespace(w.namespace)))
		w.must(w.DeleteAllOf(ctx, &pbatchv1.Job{}, client.InNamespace(w.namespace), client.PropagationPolicy(metav1.DeletePropagationBackground)))
		w.must(w.DeleteAllOf(ctx, &pcorev1.ReplicationController{}, client.InNamespace(w.namespace)))
		w.must(w.DeleteAllOf(ctx, &pcorev1.Pod{}, client.InNamespace(w.namespace)))
		stop()
		cancel()
	})
	return w
}

// startLoops runs a manager with the loops, until the function that it returns is called.
func (w *world) startLoops(e *env.Env, o options) (stop func()) {
	w.Helper()
	mgr, err := ctrl.NewManager(e.Config, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{DefaultTransform: kube.Slim, ByObject: map[client.Object]cache.ByObject{
			&coordinationv1.Lease{}: {Namespaces: map[string]cache.Config{lifecycle.LeaseNamespace: {}}},
		}},
		NewClient: func(cfg *restConfig, opts client.Options) (client.Client, error) {
			c, err := kube.NewClient(cfg, opts)
			if err == nil && o.wrap != nil {
				c = o.wrap(c)
			}
			return c, err
		},
	})
	w.must(err)
	w.must(kube.AddIndexes(w.ctx, mgr.GetFieldIndexer()))
	c, live := mgr.GetClient(), mgr.GetAPIReader()
	placer := placement.NewReconciler(c)
	c = kube.WithPlacer(c, placer)
	counts := kube.NewRelay[pappsv1.ReplicaSetStatus]()
	w.must(deployment.NewReconciler(c, live, counts).SetupWithManager(mgr))
	w.must(replicaset.NewReconciler(c, live, counts).SetupWithManager(mgr))
	w.must(replicationcontroller.NewReconciler(c, live).SetupWithManager(mgr))
	w.must(statefulset.NewReconciler(c, live).SetupWithManager(mgr))
	w.must(daemonset.NewReconciler(c, live).SetupWithManager(mgr))
	w.must(job.NewReconciler(c, live).SetupWithManager(mgr))
	w.must(ttl.NewReconciler(c, live).SetupWithManager(mgr))
	w.must(placer.SetupWithManager(mgr))
	addresses, err := ipam.NewReconciler(c, live, ipam.Options{})
	w.must(err)
	w.must(addresses.SetupWithManager(mgr))
	w.must(lifecycle.NewReconciler(c, o.lifecycle).SetupWithManager(mgr))
	w.must(podgc.NewReconciler(c, live, podgc.Options{Quarantine: 300 * time.Millisecond}).SetupWithManager(mgr))
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(w.ctx)
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			w.Error(err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// node makes a ready node.
func (w *world) node(name, cpu string) *pcorev1.Node {
	w.Helper()
	if cpu == "" {
		cpu = "4"
	}
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	w.must(w.Create(w.ctx, n))
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Capacity = n.Status.Allocatable
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(), LastHeartbeatTime: metav1.Now()}}
	w.eventually("node "+name+" gets its status", func() error {
		var fresh pcorev1.Node
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(n), &fresh); err != nil {
			return err
		}
		fresh.Status = n.Status
		return w.Status().Update(w.ctx, &fresh)
	})
	return n
}

// deployment makes a Deployment of that many pods with one container of that image.
func (w *world) deployment(name string, replicas int32, change ...func(*pappsv1.Deployment)) *pappsv1.Deployment {
	w.Helper()
	labels := map[string]string{"app": name}
	d := &pappsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	d.Spec.Replicas = &replicas
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template = template(labels, "image:1")
	for _, c := range change {
		c(d)
	}
	w.must(w.Create(w.ctx, d))
	return d
}

func template(labels map[string]string, image string) pcorev1.PodTemplateSpec {
	t := pcorev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
	t.Spec.Containers = []corev1.Container{{
		Name: "main", Image: image,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}},
	}}
	return t
}

// change changes a Deployment's spec, whatever else writes to it.
func (w *world) change(d *pappsv1.Deployment, change func(*pappsv1.Deployment)) {
	w.Helper()
	w.eventually("the Deployment takes the change", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		change(d)
		return w.Update(w.ctx, d)
	})
}

// pods are the pods with the label app of that value, the deleted ones left out.
func (w *world) pods(app string) []pcorev1.Pod {
	w.Helper()
	var list pcorev1.PodList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace), client.MatchingLabels{"app": app}))
	var out []pcorev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

// ready waits until the Deployment says that it is ready in its present generation.
func (w *world) ready(d *pappsv1.Deployment) {
	w.Helper()
	w.eventually("Deployment "+d.Name+" becomes ready", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if d.Status.ObservedGeneration == d.Generation {
			for _, c := range d.Status.Conditions {
				if string(c.Type) == pcorev1.ConditionReady && c.Status == corev1.ConditionTrue {
					return nil
				}
			}
		}
		return fmt.Errorf("generation %d, status %+v", d.Generation, d.Status)
	})
}

// eventually repeats try until it succeeds.
func (w *world) eventually(what string, try func() error) {
	w.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s: %v", what, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// agent stands in for the agents of all nodes.
type agent struct {
	mu sync.Mutex
	// broken are images whose containers never become ready.
	broken map[string]bool
	// fails says of a pod whether its containers never become ready, beside broken; nil means that it doesn't.
	fails func(ctx context.Context, c client.Client, pod *pcorev1.Pod) bool
	// slow is how long a pod takes to become ready.
	slow time.Duration
	// lost are nodes whose agent is gone.
	lost   map[string]bool
	client client.Client
}

func startAgent(t *testing.T, ctx context.Context, e *env.Env) *agent {
	t.Helper()
	mgr, err := ctrl.NewManager(e.Config, ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{broken: map[string]bool{}, lost: map[string]bool{}, client: mgr.GetClient()}
	if err := ctrl.NewControllerManagedBy(mgr).Named("agent").For(&pcorev1.Pod{}).Complete(a); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { <-done })
	return a
}

func (a *agent) breakImage(image string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken[image] = true
}

func (a *agent) ignore(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost[node] = true
}

// Reconcile makes a bound pod ready, or ends a deleted one.
func (a *agent) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pod pcorev1.Pod
	if err := a.client.Get(ctx, req.NamespacedName, &pod); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	a.mu.Lock()
	lost := a.lost[pod.Spec.NodeName]
	a.mu.Unlock()
	begun := pod.Status.Phase != "" && pod.Status.Phase != corev1.PodPending // what has ended doesn't come back
	if !lost && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
		return a.runOut(ctx, &pod)
	}
	if lost || pod.Spec.NodeName == "" || begun && pod.DeletionTimestamp == nil {
		return ctrl.Result{}, nil
	}
	if pod.DeletionTimestamp != nil {
		if err := a.end(ctx, &pod); err != nil {
			return ctrl.Result{}, ignoreRace(err)
		}
		if controllerutil.RemoveFinalizer(&pod, placement.NodeFinalizer) {
			return ctrl.Result{}, ignoreRace(a.client.Update(ctx, &pod))
		}
		return ctrl.Result{}, nil
	}
	a.mu.Lock()
	broken, slow, fails := a.broken[pod.Spec.Containers[0].Image], a.slow, a.fails
	a.mu.Unlock()
	if fails != nil {
		broken = broken || fails(ctx, a.client, &pod)
	}
	if age := time.Since(pod.CreationTimestamp.Time); age < slow {
		return ctrl.Result{RequeueAfter: slow - age}, nil
	}
	now := metav1.Now()
	pod.Status.ObservedGeneration = pod.Generation
	pod.Status.Phase = corev1.PodRunning
	ready := corev1.ConditionTrue
	state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	if broken {
		pod.Status.Phase, ready = corev1.PodPending, corev1.ConditionFalse
		state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "the image isn't there"}}
		if len(pod.Status.ContainerStatuses) > 0 {
			return ctrl.Result{}, nil
		}
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Ready: !broken, State: state}}
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now},
		{Type: corev1.PodReady, Status: ready, LastTransitionTime: now},
	}
	return ctrl.Result{}, ignoreRace(a.client.Status().Update(ctx, &pod))
}

func ignoreRace(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the watch brings the newer state
	}
	return err
}

var errNotYet = errors.New("not yet")

func orNotYet(err error) error {
	if err == nil {
		return errNotYet
	}
	return err
}

func intQuantity(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.DecimalSI) }

func rolling(surge, unavailable intstr.IntOrString) *appsv1.RollingUpdateDeployment {
	return &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
}

// onlyImage waits until all pods of an app run that image.
func (w *world) onlyImage(app, image string) {
	w.Helper()
	w.eventually("all pods run "+image, func() error {
		for _, p := range w.pods(app) {
			if p.Spec.Containers[0].Image != image {
				return fmt.Errorf("pod %s runs %s", p.Name, p.Spec.Containers[0].Image)
			}
		}
		return nil
	})
}

func (w *world) revision(d *pappsv1.Deployment, want string) error {
	w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
	if got := d.Annotations[revision.Annotation]; got != want {
		return fmt.Errorf("revision %q", got)
	}
	return nil
}
