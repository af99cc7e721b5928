// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// startTimeout bounds a start in a machine that may be busy with other tests.
const startTimeout = 3 * time.Minute

// TestOnRealContainers runs one story after the other, since they share this machine's network; simulated nodes run beside.
func TestOnRealContainers(t *testing.T) {
	counting.Lock()
	done := sync.OnceFunc(counting.Unlock)
	defer done()
	t.Parallel()
	t.Run("sample", func(t *testing.T) { testSample(t, done) })
	t.Run("two nodes", testTwoNodes)
	t.Run("a runtime that is there", testRuntimeThere)
}

// counting is held until the sample's writes are counted, for which the machine must not be busy with other stories: slow starts cost
// writes. Whoever takes it does so before it runs in parallel.
var counting sync.Mutex

// testSample is the story of the README: start, sample, answers, every process killed, restart, the power lost, stop.
func testSample(t *testing.T, counted func()) {
	m := realMachine(t)
	policy := m.Path("test/e2e/testdata/audit-policy.yaml")
	start(t, m, "--audit-policy-file", policy, "--agent-arg", "sync-frequency=10s")
	applySample(t, m)

	t.Run("kubectl shows the sample", func(t *testing.T) { checkColumns(t, m) })
	t.Run("two pods answer on the address", func(t *testing.T) { checkAddress(t, m) })
	t.Run("the write budget holds", func(t *testing.T) { checkWrites(t, m) })
	counted()
	t.Run("a second machine beside is refused", func(t *testing.T) {
		wantAll(t, refused(t, newMachine(t).Command()), fmt.Sprintf("pid %d", m.PID()), "--runtime simulated")
	})
	t.Run("config reaches the container", func(t *testing.T) { checkConfig(t, m) })
	for _, process := range []string{"manager", "agent-node-1", "containerd-node-1", "kube-apiserver", "etcd"} {
		t.Run("kill -9 of "+process, func(t *testing.T) { checkKill(t, m, process) })
	}
	t.Run("scale down and up", func(t *testing.T) { checkScale(t, m) })

	before := pods(t, m)
	t.Run("a deleted pod is replaced and its container gone", func(t *testing.T) { checkDeletedPod(t, m, before[0]) })
	t.Run("restart with the containers running on", func(t *testing.T) { checkRestart(t, m) })
	t.Run("kill -9 of pinnace up", func(t *testing.T) { checkUpKilled(t, m) })
	t.Run("kill -9 of everything", func(t *testing.T) { checkPowerLoss(t, m) })
	t.Run("Ctrl-C leaves nothing behind", func(t *testing.T) {
		forgottenShim(t, m)
		checkNothingLeft(t, m)
	})
}

// realMachine prepares a machine for real containers, or says loudly that it can't.
func realMachine(t *testing.T) *machine.Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: real containers need root; run `sudo make e2e`")
	}
	return newMachine(t)
}

func newMachine(t *testing.T) *machine.Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "pinnace-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine.New(dir, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop(t, m)
		if t.Failed() {
			saveLogs(t, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the data folder: %v", err)
		}
	})
	return m
}

func start(t *testing.T, m *machine.Machine, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := m.Start(ctx, args...); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, m *machine.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func applySample(t *testing.T, m *machine.Machine) {
	t.Helper()
	pinnace(t, m, "image", "load", "--data-dir", m.DataDir, m.Path("bin/images/hello.tar"))
	deploySample(t, m)
}

// deploySample needs the image to be there.
func deploySample(t *testing.T, m *machine.Machine) {
	t.Helper()
	kubectl(t, m, "apply", "--server-side", "-f", m.Path("config/samples/hello/hello.yaml"))
	kubectl(t, m, "wait", "--for=condition=Ready", "pdeploy/hello", "-n", "hello", "--timeout=120s")
}

func checkColumns(t *testing.T, m *machine.Machine) {
	out := kubectl(t, m, "get", "pdeploy,ppo,psvc", "-n", "hello")
	for _, pattern := range []string{
		`NAME +READY +UP-TO-DATE +AVAILABLE +AGE`, `deployment.apps.pinnace.dev/hello +3/3 +3 +3 `,
		`NAME +READY +STATUS +RESTARTS +AGE`, `pod.core.pinnace.dev/hello-\w+-\w+ +1/1 +Running +0 `,
		`NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE`, `service.core.pinnace.dev/hello +ClusterIP +10\.97\.\d+\.\d+ +<none> +80/TCP `,
	} {
		if !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("no line like %q in\n%s", pattern, out)
		}
	}
}

func checkAddress(t *testing.T, m *machine.Machine) {
	vip := strings.TrimSpace(kubectl(t, m, "get", "psvc/hello", "-n", "hello", "-o", "jsonpath={.spec.clusterIP}"))
	answered := map[string]bool{}
	eventually(t, 30*time.Second, func() error {
		body, err := ask("http://" + vip)
		if err != nil {
			return err
		}
		if from := regexp.MustCompile(`from (\S+)\.`).FindStringSubmatch(body); from != nil {
			answered[from[1]] = true
		}
		if len(answered) < 2 {
			return fmt.Errorf("only %d pods have answered; the last answer was %.100q", len(answered), body)
		}
		return nil
	})
}

func checkConfig(t *testing.T, m *machine.Machine) {
	pod := pods(t, m)[0]
	body, err := ask("http://" + pod.ip + ":8080")
	if err != nil {
		t.Fatal(err)
	}
	if want := "Hello from " + pod.name + ". Change me"; !strings.HasPrefix(body, want) {
		t.Errorf("the pod answered %q, want %q…: the env comes from the ConfigMap, the rest from the mounted file", body, want)
	}
	kubectl(t, m, "patch", "pcm/hello", "-n", "hello", "--type=merge", "-p", `{"data":{"motd":"Changed."}}`)
	eventually(t, 2*time.Minute, func() error {
		body, err := ask("http://" + pod.ip + ":8080")
		if err == nil && !strings.Contains(body, "Changed.") {
			err = fmt.Errorf("the mounted ConfigMap is still the old one: %s", body)
		}
		return err
	})
}

// checkKill kills a process and sees that the sample answers all the while, that the process comes back, and that
// no pod was doubled, lost or restarted.
func checkKill(t *testing.T, m *machine.Machine, process string) {
	before := pods(t, m)
	pid := m.Process(process)
	if pid == 0 {
		t.Fatalf("no pid file of %s; there are %v", process, m.Processes())
	}
	watch := watchAnswers(before)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() error {
		if now := m.Process(process); now == 0 || now == pid {
			return fmt.Errorf("%s has not been started again", process)
		}
		return nil
	})
	// A new pod must become Ready and go again: every process takes part in that.
	scale(t, m, 4)
	scale(t, m, 3)
	after := pods(t, m)
	if failures := watch(); len(failures) > 0 {
		t.Errorf("while %s was down the sample did not answer: %v", process, failures)
	}
	if !slices.Equal(before, after) {
		t.Errorf("the pods changed:\nbefore %v\nafter  %v", before, after)
	}
}

func checkScale(t *testing.T, m *machine.Machine) {
	scale(t, m, 1)
	scale(t, m, 5)
	scale(t, m, 3)
}

// scale waits until exactly that many pods are there and the Deployment is Ready.
func scale(t *testing.T, m *machine.Machine, replicas int) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		_, err := m.Kubectl(t.Context(), "", "scale", "pdeploy/hello", "-n", "hello", fmt.Sprintf("--replicas=%d", replicas))
		return err
	})
	eventually(t, 2*time.Minute, func() error {
		out, err := m.Kubectl(t.Context(), "", "get", "pdeploy/hello", "-n", "hello", "-o",
			`jsonpath={.metadata.generation} {.status.observedGeneration} {.status.readyReplicas} {.status.conditions[?(@.type=="Ready")].status}`)
		if err != nil {
			return err
		}
		f := strings.Fields(out)
		if len(f) != 4 || f[0] != f[1] || f[2] != fmt.Sprint(replicas) || f[3] != "True" {
			return fmt.Errorf("the Deployment is not at %d Ready: %q", replicas, out)
		}
		list, err := listPods(t, m)
		if err == nil && len(list) != replicas {
			err = fmt.Errorf("%d pods instead of %d", len(list), replicas)
		}
		return err
	})
}

func checkDeletedPod(t *testing.T, m *machine.Machine, gone pod) {
	kubectl(t, m, "delete", "ppo/"+gone.name, "-n", "hello", "--timeout=60s")
	if _, err := ask("http://" + gone.ip + ":8080"); err == nil {
		t.Errorf("the container of %s answers though kubectl said that the pod is deleted", gone.name)
	}
	scale(t, m, 3)
	for _, p := range pods(t, m) {
		if p.uid == gone.uid {
			t.Errorf("the pod %s is still there", gone.name)
		}
	}
}

func checkRestart(t *testing.T, m *machine.Machine) {
	stop(t, m)
	start(t, m, "--keep-pods")
	// The containers went with the first stop, and the statuses still tell of them until the agent has made new ones. From
	// here on they stay.
	scale(t, m, 3)
	eventually(t, time.Minute, func() error { return allAnswer(t, m) })
	before := pods(t, m)
	kubeconfig, err := os.ReadFile(m.DataDir + "/kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	watch := watchAnswers(before)
	stop(t, m)
	start(t, m)
	scale(t, m, 3)
	if failures := watch(); len(failures) > 0 {
		t.Errorf("over the restart the sample did not answer: %v", failures)
	}
	if after := pods(t, m); !slices.Equal(before, after) {
		t.Errorf("the restart changed the pods:\nbefore %v\nafter  %v", before, after)
	}
	again, err := os.ReadFile(m.DataDir + "/kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	if string(kubeconfig) != string(again) {
		t.Error("the restart changed the kubeconfig: certificates must survive")
	}
	if info, err := os.Stat(m.DataDir + "/kubeconfig"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig's mode is %v, want 0600 (%v)", info.Mode().Perm(), err)
	}
}

// allAnswer asks each pod at the address that its status names.
func allAnswer(t *testing.T, m *machine.Machine) error {
	list, err := listPods(t, m)
	for _, p := range list {
		if err == nil {
			_, err = ask("http://" + p.ip + ":8080/healthz")
		}
	}
	return err
}

// ask fetches one page over a new connection.
func ask(url string) (string, error) {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// watchAnswers asks each pod all the time; the function that it returns ends that and lists what failed.
func watchAnswers(all []pod) (end func() []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var failures []string
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() {
			ticker := time.NewTicker(50 * time.Millisecond)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				if _, err := ask("http://" + p.ip + ":8080/healthz"); err != nil {
					mu.Lock()
					failures = append(failures, fmt.Sprintf("%s at %s: %v", p.name, time.Now().Format(time.TimeOnly), err))
					mu.Unlock()
				}
			}
		})
	}
	return func() []string {
		cancel()
		wg.Wait()
		return failures
	}
}
