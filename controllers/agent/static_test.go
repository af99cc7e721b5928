// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	backoffs "k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

const aManifest = `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: edge}
spec:
  containers:
  - {name: main, image: "hello:1"}
`

func TestParseStaticPod(t *testing.T) {
	pod, err := parseStaticPod([]byte(aManifest), "web.yaml", "Node-1")
	if err != nil {
		t.Fatal(err)
	}
	if pod.Name != "web-node-1" || pod.Namespace != "edge" || pod.Spec.NodeName != "Node-1" || len(pod.UID) != 32 || pod.Annotations[annotationConfigHash] != string(pod.UID) {
		t.Errorf("got %+v", pod.ObjectMeta)
	}
	again, _ := parseStaticPod([]byte(aManifest), "web.yaml", "Node-1")
	other, _ := parseStaticPod([]byte(strings.Replace(aManifest, "hello:1", "hello:2", 1)), "web.yaml", "Node-1")
	if again.UID != pod.UID || other.UID == pod.UID {
		t.Errorf("the UID should follow the content: %s, %s, %s", pod.UID, again.UID, other.UID)
	}
	for name, tc := range map[string]struct{ manifest, want string }{
		"no YAML":           {"{", "no manifest of a pod"},
		"unknown field":     {aManifest + "  colour: blue\n", "no manifest of a pod"},
		"another kind":      {strings.Replace(aManifest, "kind: Pod", "kind: Service", 1), "a static pod is a Pod"},
		"no name":           {strings.Replace(aManifest, "name: web, ", "", 1), "no name"},
		"a bad name":        {strings.Replace(aManifest, "name: web, ", "name: Web_, ", 1), "is none"},
		"no containers":     {"apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {}\n", "no containers"},
		"a service account": {aManifest + "  serviceAccountName: builder\n", "can't have serviceAccountName"},
		"a secret volume":   {aManifest + "  volumes: [{name: v, secret: {secretName: s}}]\n", "can't refer to the Secret s"},
		"a claim":           {aManifest + "  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]\n", "no claims"},
		"a token":           {aManifest + "  volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]\n", "only downwardAPI"},
	} {
		if _, err := parseStaticPod([]byte(tc.manifest), "web.yaml", "node-1"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tc.want)
		}
	}
}

func TestMirrorsBelongToTheirNode(t *testing.T) {
	static, err := parseStaticPod([]byte(aManifest), "web.yaml", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	mirror := makeMirror(static, &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "uid-of-node"}})
	if !isMirror(mirror) || isMirror(static) || !mirrors(mirror, static) {
		t.Errorf("annotations: %v", mirror.Annotations)
	}
	if owner := metav1.GetControllerOf(mirror); owner == nil || owner.Kind != "Node" || owner.UID != "uid-of-node" {
		t.Errorf("owner: %+v", mirror.OwnerReferences)
	}
	changed, _ := parseStaticPod([]byte(aManifest+"# changed\n"), "web.yaml", "node-1")
	if mirrors(mirror, changed) {
		t.Error("the mirror of an earlier content counts for a later one")
	}
}

// TestStaticPodRunsAfterItsNodesEnd: a mirror that tells of the node's end is no reason for the next agent not to run the pod.
func TestStaticPodRunsAfterItsNodesEnd(t *testing.T) {
	static, err := parseStaticPod([]byte(aManifest), "web.yaml", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	mirror := makeMirror(static, &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}})
	other := mirror.DeepCopy()
	other.Annotations[MirrorAnnotation] = "another"
	for phase, taken := range map[corev1.PodPhase]bool{corev1.PodPending: true, corev1.PodRunning: true, corev1.PodFailed: false, corev1.PodSucceeded: false} {
		mirror.Status.Phase, other.Status.Phase = phase, phase
		if got := mirrored(mirror, static) != nil; got != taken {
			t.Errorf("the status of a mirror in phase %s is taken over: %v, want %v", phase, got, taken)
		}
		if mirrored(other, static) != nil || mirrored(nil, static) != nil {
			t.Error("a status is taken over that isn't this pod's")
		}
	}
}

// TestStaticPodsNeedNoAPIServer runs an agent that has none: its client is nil, and to ask it would end the test.
func TestStaticPodsNeedNoAPIServer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(aManifest), 0o644); err != nil {
		t.Fatal(err)
	}
	runs := fake.New(fake.Options{})
	r := NewReconciler(nil, Options{})
	if err := r.AddNode(Node{Name: "node-1", Runtime: runs, StaticPodDir: dir, Simulated: true}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.LoadStatic(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.RunStatic(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	running := func(except string) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			list, err := runs.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
			return len(list) == 1 && list[0].Id != except, err
		}
	}
	if err := backoffs.PollUntilContextTimeout(ctx, 10*time.Millisecond, 20*time.Second, true, running("")); err != nil {
		t.Fatalf("the static pod doesn't run: %v", err)
	}
	list, err := runs.ListContainers(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	runs.Exit(list[0].Id, 1)
	if err := backoffs.PollUntilContextTimeout(ctx, 10*time.Millisecond, 20*time.Second, true, running(list[0].Id)); err != nil {
		t.Fatalf("it isn't started again: %v", err)
	}
}
