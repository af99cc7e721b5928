// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/install"
	"github.com/pinnace-dev/pinnace/test/env"
)

// actsWithin bounds the wait for a policy that was just stored.
const actsWithin = 30 * time.Second

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.WithoutPinnaceCRDs()))
}

var once sync.Once

// start returns the shared server with Pinnace installed and its policies acting.
func start(t *testing.T) *env.Env {
	t.Helper()
	e := env.Start(t)
	var err error
	once.Do(func() { err = install.Install(t.Context(), e.Config, install.Options{}) })
	if err != nil {
		t.Fatalf("installing: %v", err)
	}
	return e
}

// as is a client that acts as another user, and the warnings that it gets.
func as(t *testing.T, config *rest.Config, user string, groups ...string) (client.Client, *warnings) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, pcorev1.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	config = rest.CopyConfig(config)
	if user != "" {
		config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	}
	heard := &warnings{}
	config.WarningHandlerWithContext = heard
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c, heard
}

type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.Join(w.texts, "\n")
	w.texts = nil
	return text
}

// eventually tries until check is content, since a policy acts a moment after it is stored.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(actsWithin)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// refused is content when err says want.
func refused(err error, want string) error {
	if err == nil {
		return fmt.Errorf("it was allowed; want a refusal with %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		return fmt.Errorf("want a refusal with %q, got: %w", want, err)
	}
	return nil
}

func pod(namespace, name, node string) *pcorev1.Pod {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "example.org/c:v1"}}
	return p
}

func TestInstallingAgainChangesNothing(t *testing.T) {
	e := start(t)
	began := time.Now()
	err := install.Install(t.Context(), e.Config, install.Options{
		Progress: func(object string) { t.Errorf("%s was applied again", object) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a second installation took %s", time.Since(began).Round(time.Millisecond))
}

func TestKeepCRDs(t *testing.T) {
	e := start(t)
	c, _ := as(t, e.Config, "")
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "limitranges.core.pinnace.dev"}, crd); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		return refused(c.Delete(t.Context(), crd, client.DryRunAll),
			"deleting this CRD would delete every LimitRange of core.pinnace.dev in all namespaces, and stop what they run; to allow it: "+
				"kubectl annotate crd limitranges.core.pinnace.dev pinnace.dev/allow-delete=true")
	})
	crd.Annotations["pinnace.dev/allow-delete"] = "true"
	if err := c.Update(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), crd, client.DryRunAll); err != nil {
		t.Errorf("an annotated CRD isn't deleted: %v", err)
	}
	delete(crd.Annotations, "pinnace.dev/allow-delete")
	if err := c.Update(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
}

// checkMirrors has an agent make mirrors of static pods: those that it may, and those that would get it at others' things.
func checkMirrors(t *testing.T, agent client.Client, namespace string, node *pcorev1.Node) {
	t.Helper()
	const bound, refers, volumes = "must be bound to that node and belong to it alone", "may refer to no other object", "may have volumes only of its own"
	secret := corev1.LocalObjectReference{Name: "s"}
	for name, tc := range map[string]struct {
		change func(*pcorev1.Pod)
		want   string
	}{
		"of another node":    {func(p *pcorev1.Pod) { p.Spec.NodeName = "b" }, bound},
		"of no node":         {func(p *pcorev1.Pod) { p.Spec.NodeName = "" }, bound},
		"without an owner":   {func(p *pcorev1.Pod) { p.OwnerReferences = nil }, bound},
		"with another owner": {func(p *pcorev1.Pod) { p.OwnerReferences[0].Name = "b" }, bound},
		"with a pull secret": {func(p *pcorev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{secret} }, refers},
		"with an account":    {func(p *pcorev1.Pod) { p.Spec.ServiceAccountName = "builder" }, refers},
		"with a secret's keys": {func(p *pcorev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: secret}}}
		}, refers},
		"with a secret volume": {func(p *pcorev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		}, volumes},
		"with a token": {func(p *pcorev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}},
			}}}}}
		}, volumes},
	} {
		p := mirrorOf(namespace, node)
		tc.change(p)
		if err := refused(agent.Create(t.Context(), p, client.DryRunAll), tc.want); err != nil {
			t.Errorf("a mirror %s: %v", name, err)
		}
	}
	mirror := mirrorOf(namespace, node)
	if err := agent.Create(t.Context(), mirror); err != nil {
		t.Fatalf("an agent can't make a mirror: %v", err)
	}
	if err := agent.Delete(t.Context(), mirror); err != nil {
		t.Errorf("an agent can't delete its mirror: %v", err)
	}
}

func mirrorOf(namespace string, node *pcorev1.Node) *pcorev1.Pod {
	p := pod(namespace, "static-a", node.Name)
	p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"}
	p.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: pcorev1.GroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID, Controller: new(true),
	}}
	p.Spec.Volumes = []corev1.Volume{{Name: "own", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return p
}

// TestAgentsKeepToTheirNode gives an agent every right, so that only the policy holds it.
func TestAgentsKeepToTheirNode(t *testing.T) {
	e := start(t)
	ctx := t.Context()
	admin, _ := as(t, e.Config, "")
	agent, _ := as(t, e.Config, "system:pinnace:node:a", "system:pinnace:nodes", "system:masters")
	ns := e.Namespace(t)

	nodeB := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
	eventually(t, func() error {
		return refused(agent.Create(ctx, nodeB.DeepCopy(), client.DryRunAll), "the agent of node a may not touch node b")
	})
	nodeA := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	if err := agent.Create(ctx, nodeA); err != nil {
		t.Errorf("an agent can't register its own node: %v", err)
	}

	mine, other := pod(ns, "mine", "a"), pod(ns, "other", "b")
	mine.Finalizers = []string{"pinnace.dev/node", "example.org/other"}
	for _, p := range []*pcorev1.Pod{mine, other} {
		if err := admin.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	mine.Status.Phase, other.Status.Phase = corev1.PodRunning, corev1.PodRunning
	if err := agent.Status().Update(ctx, mine); err != nil {
		t.Errorf("an agent can't write the status of its own pod: %v", err)
	}
	const notMine = "the agent of node a may touch only pods that are bound to its node"
	if err := refused(agent.Status().Update(ctx, other), notMine); err != nil {
		t.Errorf("the status of another node's pod: %v", err)
	}
	if err := refused(agent.Delete(ctx, other), notMine); err != nil {
		t.Errorf("deleting another node's pod: %v", err)
	}
	const onlyMirrors = "the agent of node a may make and delete only mirrors of its static pods"
	if err := refused(agent.Create(ctx, pod(ns, "new", "a")), onlyMirrors); err != nil {
		t.Errorf("creating a pod: %v", err)
	}
	if err := refused(agent.Delete(ctx, mine), onlyMirrors); err != nil {
		t.Errorf("deleting its own pod: %v", err)
	}
	checkMirrors(t, agent, ns, nodeA)
	const onlyStatus = "the agent of node a may change only the status of pods, and take its own finalizer off"
	for name, change := range map[string]func(*pcorev1.Pod){
		"labels":         func(p *pcorev1.Pod) { p.Labels = map[string]string{"a": "b"} },
		"spec":           func(p *pcorev1.Pod) { p.Spec.Containers[0].Image = "example.org/c:v2" },
		"new finalizer":  func(p *pcorev1.Pod) { p.Finalizers = append(p.Finalizers, "example.org/mine") },
		"all finalizers": func(p *pcorev1.Pod) { p.Finalizers = nil },
	} {
		changed := mine.DeepCopy()
		change(changed)
		if err := refused(agent.Update(ctx, changed), onlyStatus); err != nil {
			t.Errorf("changing %s: %v", name, err)
		}
	}
	mine.Finalizers = []string{"example.org/other"}
	if err := agent.Update(ctx, mine); err != nil {
		t.Errorf("an agent can't take its finalizer off its own pod: %v", err)
	}
	const ownLease = "the agent of node a may hold only its own Lease, pinnace-node-lease/a"
	for _, key := range []client.ObjectKey{{Namespace: "pinnace-node-lease", Name: "b"}, {Namespace: ns, Name: "a"}} {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		if err := refused(agent.Create(ctx, lease), ownLease); err != nil {
			t.Errorf("the lease %s: %v", key, err)
		}
	}
	// Without any other right, the role alone must let an agent hold its lease and write its node.
	plain, _ := as(t, e.Config, "system:pinnace:node:a", "system:pinnace:nodes")
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "pinnace-node-lease", Name: "a"}}
	if err := plain.Create(ctx, lease); err != nil {
		t.Errorf("an agent can't hold its own lease: %v", err)
	}
	if err := plain.Status().Update(ctx, nodeA); err != nil {
		t.Errorf("an agent can't write its own node's status: %v", err)
	}
}

func TestFieldsWithoutEffectAreWarnedOf(t *testing.T) {
	e := start(t)
	person, heard := as(t, e.Config, "")
	ns := e.Namespace(t)
	p := pod(ns, "warned", "")
	p.Spec.RuntimeClassName = new("gvisor")
	eventually(t, func() error {
		if err := person.Create(t.Context(), p.DeepCopy(), client.DryRunAll); err != nil {
			return err
		}
		if got := heard.take(); !strings.Contains(got, "spec.runtimeClassName has no effect yet") {
			return fmt.Errorf("got the warnings %q", got)
		}
		return nil
	})
	if err := person.Create(t.Context(), pod(ns, "plain", ""), client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if got := heard.take(); got != "" {
		t.Errorf("a plain pod is warned of: %s", got)
	}
}

func TestKindsWithoutControllersAreWarnedOf(t *testing.T) {
	e := start(t)
	person, heard := as(t, e.Config, "")
	claim := &pcorev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace(t), Name: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	eventually(t, func() error {
		if err := person.Create(t.Context(), claim.DeepCopy(), client.DryRunAll); err != nil {
			return err
		}
		if got := heard.take(); !strings.Contains(got, "nothing acts on the kind PersistentVolumeClaim yet") {
			return fmt.Errorf("got the warnings %q", got)
		}
		return nil
	})
}

// TestPodRules shows that the rules which the schemas don't carry act, on people and not on Pinnace's own processes.
func TestPodRules(t *testing.T) {
	e := start(t)
	person, _ := as(t, e.Config, "")
	ns := e.Namespace(t)
	p := pod(ns, "twins", "")
	p.Spec.InitContainers = []corev1.Container{{Name: "c", Image: "example.org/c:v1"}}
	eventually(t, func() error {
		return refused(person.Create(t.Context(), p.DeepCopy(), client.DryRunAll), "an init container has the name of a container")
	})
	manager, _ := as(t, e.Config, "system:pinnace:manager", "system:masters")
	if err := manager.Create(t.Context(), p.DeepCopy(), client.DryRunAll); err != nil {
		t.Errorf("the manager's pods are looked at again: %v", err)
	}
}

func TestColumnsOfKindsWithoutStatus(t *testing.T) {
	e := start(t)
	c, _ := as(t, e.Config, "")
	ns := e.Namespace(t)
	eventually(t, func() error {
		made := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "c-"}, Data: map[string]string{"a": "1", "b": "2"}}
		if err := c.Create(t.Context(), made); err != nil {
			return err
		}
		if got := made.Annotations[pcorev1.ColumnAnnotationPrefix+"data"]; got != "2" {
			return fmt.Errorf("the annotation for the column DATA is %q, want 2", got)
		}
		return nil
	})
}

// TestViewDoesNotSeeSecrets asks the API server what a person with a role may do.
func TestViewDoesNotSeeSecrets(t *testing.T) {
	e := start(t)
	admin, _ := as(t, e.Config, "")
	ns := e.Namespace(t)
	bind(t, admin, ns, "pinnace-view", "viewer")
	bind(t, admin, ns, "pinnace-edit", "editor")
	viewer, _ := as(t, e.Config, "viewer")
	editor, _ := as(t, e.Config, "editor")
	eventually(t, func() error { return viewer.List(t.Context(), &pcorev1.PodList{}, client.InNamespace(ns)) })
	if err := refused(viewer.List(t.Context(), &pcorev1.SecretList{}, client.InNamespace(ns)), "cannot list resource \"secrets\""); err != nil {
		t.Error(err)
	}
	eventually(t, func() error { return editor.List(t.Context(), &pcorev1.SecretList{}, client.InNamespace(ns)) })
	if err := refused(viewer.Create(t.Context(), pod(ns, "p", ""), client.DryRunAll), "cannot create resource \"pods\""); err != nil {
		t.Error(err)
	}
}
