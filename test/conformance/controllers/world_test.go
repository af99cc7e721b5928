// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/pinnace-dev/pinnace/controllers/node/lifecycle"
	"github.com/pinnace-dev/pinnace/internal/install"
	"github.com/pinnace-dev/pinnace/internal/setup"
	"github.com/pinnace-dev/pinnace/internal/supervise"
	"github.com/pinnace-dev/pinnace/test/env"
)

// upstreamLoops are the loops of kube-controller-manager that judge ours, and the generic ones that both sides need.
var upstreamLoops = []string{
	"deployment-controller", "replicaset-controller", "replicationcontroller-controller", "statefulset-controller",
	"daemonset-controller", "job-controller", "cronjob-controller", "disruption-controller", "ttl-after-finished-controller",
	"persistentvolumeclaim-protection-controller",
	"garbage-collector-controller", "namespace-controller", "serviceaccount-controller",
}

// world is one API server with both sides' controllers.
type world struct {
	client dynamic.Interface
	native *side
	ours   *side
}

// newWorld starts everything. It is stopped when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	e := env.Start(t, env.WithoutPinnaceCRDs())
	if err := install.Install(ctx, e.Config, install.Options{}); err != nil {
		t.Fatalf("installing Pinnace's kinds: %v", err)
	}
	config := rest.CopyConfig(e.Config)
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{client: client}
	ensureNamespace(t, client, lifecycle.LeaseNamespace)
	if err := e.ControlPlane.StartControllerManager(ctx, upstreamLoops); err != nil {
		t.Fatal(err)
	}
	startScheduler(t, e)
	startManager(t, e)
	w.native = newSide(t, config, "upstream", false)
	w.ours = newSide(t, config, "ours", true)
	w.forbid(t)
	return w
}

// forbid installs an admission policy that refuses pods with the label oracle/deny, as a quota would, and waits until it acts.
func (w *world) forbid(t *testing.T) {
	t.Helper()
	for _, text := range []string{`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: oracle-deny}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: ["", core.pinnace.dev], apiVersions: ["*"], resources: [pods], operations: [CREATE]}]
  validations: [{expression: "!('oracle/deny' in object.metadata.?labels.orValue({}))", message: the oracle refuses it, reason: Forbidden}]
`, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: oracle-deny}
spec: {policyName: oracle-deny, validationActions: [Deny]}
`} {
		m := parse(text)
		resource := m.gvk().GroupVersion().WithResource(map[string]string{
			"ValidatingAdmissionPolicy": "validatingadmissionpolicies", "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
		}[m.gvk().Kind])
		if _, err := w.client.Resource(resource).Create(t.Context(), &unstructured.Unstructured{Object: m}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*side{w.native, w.ours} {
		err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			probe := s.in(barePod("probe", "metadata: {labels: {oracle/deny: 'yes'}}"))
			_, err := s.client.Resource(s.resource("pod")).Namespace("default").Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return apierrors.IsForbidden(err), nil
		})
		if err != nil {
			t.Fatalf("waiting for the policy that refuses pods: %v", err)
		}
	}
}

// startScheduler runs kube-scheduler. It doesn't look at volumes: nobody provisions any here, on either side.
func startScheduler(t *testing.T, e *env.Env) {
	t.Helper()
	program := filepath.Join(env.Assets(t), "kube-scheduler")
	if _, err := os.Stat(program); err != nil {
		word := fmt.Sprintf("The controller oracle needs kube-scheduler, which `make oracle-controllers` builds: %v", err)
		if os.Getenv("CI") != "" {
			t.Fatal(word)
		}
		fmt.Fprintf(os.Stderr, "SKIPPED %s: %s\n", t.Name(), word)
		t.Skip(word)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "scheduler.yaml")
	var disabled []string
	for _, name := range []string{"VolumeBinding", "VolumeZone", "VolumeRestrictions", "NodeVolumeLimits"} {
		disabled = append(disabled, "{name: "+name+"}")
	}
	content := fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: %q, qps: 500, burst: 1000}
leaderElection: {leaderElect: false}
profiles: [{schedulerName: default-scheduler, plugins: {multiPoint: {disabled: [%s]}}}]
`, e.Kubeconfig, strings.Join(disabled, ", "))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	process := supervise.Process{
		Name: "kube-scheduler", Path: program, LogFile: filepath.Join(dir, "scheduler.log"), OrphanSignal: syscall.SIGKILL,
		Args: []string{
			"--config=" + file, "--secure-port=0", "--authentication-kubeconfig=" + e.Kubeconfig,
			"--authorization-kubeconfig=" + e.Kubeconfig,
		},
	}
	instance, err := process.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := instance.Stop(ctx); err != nil {
			t.Errorf("stopping kube-scheduler: %v", err)
		}
		if t.Failed() {
			t.Logf("kube-scheduler's log ends with:\n%s", strings.Join(supervise.Tail(process.LogFile, 5), "\n"))
		}
	})
}

// startManager runs our manager as users run it.
func startManager(t *testing.T, e *env.Env) {
	t.Helper()
	options := setup.NewManagerOptions()
	options.Kubeconfig, options.LeaderElect = e.Kubeconfig, false
	if os.Getenv("PINNACE_TEST_LOG") == "" {
		options.Log.Verbosity = -3 // silent: what matters is in the objects
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- setup.RunManager(ctx, options) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("running our manager: %v", err)
		}
	})
}

var namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

func ensureNamespace(t *testing.T, client dynamic.Interface, name string) {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
	if _, err := client.Resource(namespaces).Create(t.Context(), object, metav1.CreateOptions{}); err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
}
