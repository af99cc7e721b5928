// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPlugin runs kubectl pinnace as people do. What it prints and how it ends is what kubectl prints and how it ends.
func TestPlugin(t *testing.T) {
	w := newWorld(t)
	w.loadProgram(t, "tar", "0:0")
	w.plugin(t, "apply", "-f", w.Path("test/subresources/testdata/plugin.yaml"))
	w.plugin(t, "rollout", "status", "deploy/web", "--timeout=90s")
	w.plugin(t, "wait", "--for=condition=Ready", "pod/files", "--timeout=60s")
	w.plugin(t, "wait", "--for=condition=Complete", "job/job", "--timeout=60s")
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"help", w.testHelp},
		{"logs", w.testPluginLogs},
		{"exec", w.testPluginExec},
		{"attach", w.testPluginAttach},
		{"cp", w.testCopy},
		{"port-forward", w.testPluginForward},
		{"debug", w.testDebug},
		{"top", w.testTop},
		{"resize", w.testResize},
		{"proxy", w.testProxy},
		{"get and describe", w.testDescribe},
		{"rollout", w.testRollout},
		{"edits", w.testEdits},
		{"handed over", w.testHandedOver},
		{"drain", w.testDrain},
	} {
		t.Run(part.name, part.run)
	}
}

// ended is how a program ended.
type ended struct {
	stdout, stderr string
	code           int
}

// tryPlugin runs kubectl pinnace, with input on stdin if any.
func (w *world) tryPlugin(t *testing.T, input string, args ...string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := w.Plugin(ctx, args...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

func (w *world) plugin(t *testing.T, args ...string) string {
	t.Helper()
	got := w.tryPlugin(t, "", args...)
	if got.code != 0 {
		t.Fatalf("kubectl pinnace %s: %+v", strings.Join(args, " "), got)
	}
	return got.stdout
}

// expect runs kubectl pinnace and compares all of its standard output with a pattern.
func (w *world) expect(t *testing.T, pattern string, args ...string) {
	t.Helper()
	if got := w.plugin(t, args...); !regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(got) {
		t.Errorf("kubectl pinnace %s: got %q, want %s", strings.Join(args, " "), got, pattern)
	}
}

// expectSoon is expect for what a program in a container has yet to print: a pod is Ready when it has started.
func (w *world) expectSoon(t *testing.T, pattern string, args ...string) {
	t.Helper()
	wanted := regexp.MustCompile("^(?s:" + pattern + ")$")
	deadline, ticker := time.After(30*time.Second), time.NewTicker(300*time.Millisecond)
	defer ticker.Stop()
	for {
		got := w.tryPlugin(t, "", args...)
		if got.code == 0 && wanted.MatchString(got.stdout) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("kubectl pinnace %s: got %+v, want %s", strings.Join(args, " "), got, pattern)
		case <-ticker.C:
		}
	}
}

// testHelp compares the flags with those of the kubectl that was built beside the API server.
func (w *world) testHelp(t *testing.T) {
	flag := regexp.MustCompile(`(?m)^\s+(?:-\w, )?--[\w-]+=?.*:$`)
	for _, command := range []string{"logs", "exec", "attach", "cp", "port-forward", "debug", "top pod", "top node", "rollout status", "drain", "describe"} {
		args := append(strings.Fields(command), "--help")
		theirs := flag.FindAllString(w.kubectl(t, args...), -1)
		ours := flag.FindAllString(w.plugin(t, args...), -1)
		if len(ours) == 0 || strings.Join(ours, "\n") != strings.Join(theirs, "\n") {
			t.Errorf("%s: the flags are %q, kubectl's %q", command, ours, theirs)
		}
	}
}

func (w *world) testPluginLogs(t *testing.T) {
	w.expect(t, "line 9\nline 10\n", "logs", "counter", "--tail=2")
	w.expect(t, `\S+T\S+ line 10\n`, "logs", "counter", "--tail=1", "--timestamps")
	w.expect(t, "", "logs", "counter", "--since-time=2100-01-01T00:00:00Z")
	w.expect(t, "line 10\n", "logs", "pod/counter", "--since=1h", "--tail=1")
	w.expect(t, "line 1\nline 2\nline 3\n", "logs", "job/job")
	w.expectSoon(t, "serving\n.*", "logs", "deploy/web")
	w.expectSoon(t, "serving\n.*", "logs", "pdeploy/web")
	w.expectSoon(t, "serving\n.*", "logs", "deployments.apps.pinnace.dev/web")
	w.expectSoon(t, `(\[pod/web-\w+-\w+/main\] \w+\n){4}`, "logs", "-l", "app=web", "--prefix", "--tail=-1")
	w.expect(t, "serving\n.*", "logs", "box", "--all-containers")
	w.await(t, "crash", `jsonpath={.status.containerStatuses[0].restartCount}`, regexp.MustCompile(`[1-9]`))
	w.expect(t, "so long\n", "logs", "crash", "--previous")
	w.kubectl(t, "delete", "ppo/slow", "--ignore-not-found", "--timeout=30s")
	w.kubectl(t, "apply", "-f", w.Path("test/subresources/testdata/slow.yaml"))
	w.await(t, "slow", `jsonpath={.status.containerStatuses[0].state.running.startedAt}`, regexp.MustCompile(`.`))
	w.expect(t, "(line \\d+\n){19}line 20\n", "logs", "slow", "-f")
	got := w.tryPlugin(t, "", "logs", "none")
	if want := `error from server (NotFound): pods.core.pinnace.dev "none" not found`; got.code != 1 || !strings.Contains(got.stderr, want) {
		t.Errorf("got %+v", got)
	}
	if got := w.tryPlugin(t, "", "logs", "box", "-c", "none"); got.code != 1 || !strings.Contains(got.stderr, "container none is not valid for pod box") {
		t.Errorf("got %+v", got)
	}
}

func (w *world) testPluginExec(t *testing.T) {
	got := w.tryPlugin(t, "hello\n", "exec", "-i", "box", "-c", "echo", "--", "/testprog", "echo")
	if got.code != 0 || got.stdout != "HELLO\nbye\n" {
		t.Errorf("got %+v", got)
	}
	got = w.tryPlugin(t, "", "exec", "box", "-c", "web", "--", "/testprog", "exit", "7")
	if got.code != 7 || got.stderr != "so long\ncommand terminated with exit code 7\n" {
		t.Errorf("got %+v", got)
	}
	if got := w.tryPlugin(t, "", "exec", "deploy/web", "--", "/testprog", "exit", "0"); got.code != 0 {
		t.Errorf("got %+v", got)
	}
	if got := w.tryPlugin(t, "", "exec", "box", "--", "/testprog", "exit", "0"); !strings.Contains(got.stderr, "Defaulted container \"web\" out of: web, echo") {
		t.Errorf("got %+v", got)
	}
}

func (w *world) testPluginAttach(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command := w.Plugin(ctx, "attach", "-i", "box", "-c", "echo")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(in, "from the plugin\n")
	w.awaitLog(t, "box", "echo", "FROM THE PLUGIN")
	cancel()
	_ = command.Wait()
}

func (w *world) testCopy(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("a"), []byte("one"), 0o600), os.Mkdir(at("d"), 0o700), os.WriteFile(at("d/b"), []byte("two"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.plugin(t, "cp", at("a"), "files:/copied/a")
	w.plugin(t, "cp", "files:/copied/a", at("a2"))
	w.plugin(t, "cp", at("d"), "default/files:/copied/d")
	w.plugin(t, "cp", "files:/copied/d", at("d2"))
	for name, want := range map[string]string{"a2": "one", "d2/b": "two"} {
		if got, err := os.ReadFile(at(name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if got := w.tryPlugin(t, "", "cp", "files:/none", at("none")); got.code == 0 {
		t.Errorf("got %+v", got)
	}
}

func (w *world) testPluginForward(t *testing.T) {
	for _, target := range []string{"pod/box :8080", "deploy/web :8080", "svc/web :80"} {
		t.Run(target, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			command := w.Plugin(ctx, append([]string{"port-forward", "--address=127.0.0.1"}, strings.Fields(target)...)...)
			out, err := command.StdoutPipe()
			if err == nil {
				err = command.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = command.Wait()
			}()
			line, err := bufio.NewReader(out).ReadString('\n')
			ports := regexp.MustCompile(`^Forwarding from 127.0.0.1:(\d+) -> 8080\n$`).FindStringSubmatch(line)
			if err != nil || ports == nil {
				t.Fatalf("got %q, %v", line, err)
			}
			response, err := http.Get("http://127.0.0.1:" + ports[1] + "/x")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			if body, err := io.ReadAll(response.Body); err != nil || string(body) != "served /x" {
				t.Errorf("got %q, %v", body, err)
			}
		})
	}
}

func (w *world) testDebug(t *testing.T) {
	w.plugin(t, "debug", "counter", "--image=pinnace.dev/testprog:v1", "--container=dbg", "--profile=general", "--", "/testprog", "count", "2")
	w.awaitLog(t, "counter", "dbg", "line 2\n")
	w.expect(t, "", "debug", "counter", "--image=pinnace.dev/testprog:v1", "--copy-to=copy", "--container=dbg", "--profile=general", "--", "/testprog", "count", "2")
	w.plugin(t, "wait", "--for=condition=Ready", "pod/copy", "--timeout=60s")
	w.expectSoon(t, "line 1\nline 2\n", "logs", "copy", "-c", "dbg")
	w.plugin(t, "delete", "pod", "copy", "--grace-period=1")
}

func (w *world) testTop(t *testing.T) {
	w.kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.pinnace.dev", "--timeout=60s")
	w.expect(t, `NAME +CPU\(cores\) +MEMORY\(bytes\) *\nfiles +[1-9]\d*m +\d+Mi *\n`, "top", "pod", "files")
	w.expect(t, `POD +NAME .*\nbox +echo +\d+m +\d+Mi *\nbox +web .*\nfiles .*\nweb-.*\n`, "top", "pods", "--containers")
	const raw = "/apis/metrics.pinnace.dev/v1beta1/namespaces/default/pods"
	if got, err := w.Kubectl(t.Context(), "", "get", "--raw", raw, "--as=reader"); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("who may not: got %q, %v", got, err)
	}
	w.kubectl(t, "create", "rolebinding", "viewer", "--clusterrole=view", "--user=viewer")
	w.kubectl(t, "get", "--raw", raw, "--as=viewer")
	w.expect(t, `NAME .*\nnode-1 +\d+m +\d+% +\d+Mi +\d+% *\n`, "top", "nodes")
}

func (w *world) testResize(t *testing.T) {
	patch := func(resources string) []string {
		return []string{"patch", "pod", "files", "--subresource=resize", "-p", `{"spec":{"containers":[{"name":"main","resources":` + resources + `}]}}`}
	}
	w.expect(t, "pod/files patched\n", patch(`{"limits":{"cpu":"300m"}}`)...)
	w.await(t, "files", `jsonpath={.status.containerStatuses[0].resources.limits.cpu}`, regexp.MustCompile("^300m$"))
	w.expect(t, "0", "get", "pod", "files", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
	got := w.tryPlugin(t, "", patch(`{"requests":{"cpu":"300m","memory":"64Mi"}}`)...)
	if got.code != 1 || !strings.Contains(got.stderr, "Pod QOS Class may not change as a result of resizing") {
		t.Errorf("got %+v", got)
	}
}

func (w *world) testProxy(t *testing.T) {
	if got := w.kubectl(t, "get", "--raw", "/apis/subresources.pinnace.dev/v1/namespaces/default/pods/box:8080/proxy/a/b?c=d"); got != "served /a/b?c=d" {
		t.Errorf("got %q", got)
	}
	if got, err := w.Kubectl(t.Context(), "", "get", "--raw", "/apis/subresources.pinnace.dev/v1/namespaces/default/pods/box:81/proxy/", "--as=reader"); err == nil {
		t.Errorf("who may not: got %q", got)
	}
}

func (w *world) testDescribe(t *testing.T) {
	w.expect(t, `NAME +READY +STATUS +RESTARTS +AGE\nbox +2/2 +Running +0 +\S+\n`, "get", "pods", "box")
	w.expect(t, "Name: +box\n.*Node: +node-1/.*Ready: +True.*", "describe", "pod", "box")
	w.expect(t, "Name: +web\n.*Replicas: +2 desired \\| 2 updated \\| 2 total \\| 2 available.*NewReplicaSet: +web-.*", "describe", "deploy", "web")
	w.expect(t, "Name: +node-1\n.*Non-terminated Pods: .*default +box .*", "describe", "node", "node-1")
	w.expect(t, "Name: +web\n.*Endpoints: +10\\..*", "describe", "svc", "web")
}

func (w *world) testRollout(t *testing.T) {
	w.expect(t, "deployment.apps/web restarted\n", "rollout", "restart", "deploy/web")
	w.expect(t, ".*deployment \"web\" successfully rolled out\n", "rollout", "status", "deploy/web", "--timeout=90s")
	w.expect(t, "deployment.apps/web env updated\n", "set", "env", "deploy/web", "A=b")
	w.expect(t, "deployment.apps/web \nREVISION +CHANGE-CAUSE\n1 .*\n2 .*\n3 .*\n\n", "rollout", "history", "deploy/web")
	w.expect(t, "deployment.apps/web rolled back\n", "rollout", "undo", "deploy/web")
	w.expect(t, "", "get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env}")
	w.expect(t, "deployment.apps/web scaled\n", "scale", "deploy/web", "--replicas=1")
	w.expect(t, `deployment.apps/web image updated \(server dry run\)\n`, "set", "image", "deploy/web", "main=pinnace.dev/testprog:v2", "--dry-run=server")
	w.expect(t, ".*deployment \"web\" successfully rolled out\n", "rollout", "status", "deploy/web", "--timeout=90s")
}

func (w *world) testEdits(t *testing.T) {
	w.expect(t, "pod/box labeled\n", "label", "pod", "box", "a=b")
	w.expect(t, "pod/box annotated\n", "annotate", "pod", "box", "a=b")
	w.expect(t, "pod/run created\n", "run", "run", "--image=pinnace.dev/testprog:v1", "--restart=Never", "--", "count", "1")
	w.expect(t, "service/run exposed\n", "expose", "pod", "run", "--port=80")
	w.expect(t, "configmap/c created\n", "create", "configmap", "c", "--from-literal=a=b")
	if got := w.kubectl(t, "get", "pcm/c", "-o", "jsonpath={.data.a}"); got != "b" {
		t.Errorf("the ConfigMap isn't Pinnace's: %q", got)
	}
}

func (w *world) testHandedOver(t *testing.T) {
	got := w.tryPlugin(t, "apiVersion: v1\nkind: Pod\n", "convert")
	if got.code != 0 || !strings.HasPrefix(got.stdout, "apiVersion: core.pinnace.dev/v1\n") {
		t.Errorf("got %+v", got)
	}
	if got := w.tryPlugin(t, "", "explain", "pods"); got.code != 1 || !strings.Contains(got.stderr, "kubectl explain pods") {
		t.Errorf("left to kubectl: got %+v", got)
	}
}

// testDrain ends with an empty node. A pod that somebody holds shows why it went.
func (w *world) testDrain(t *testing.T) {
	w.kubectl(t, "patch", "ppo/files", "--type=merge", "-p", `{"metadata":{"finalizers":["pinnace.dev/node","example.com/hold"]}}`)
	w.expect(t, "node/node-1 cordoned\n", "cordon", "node-1")
	got := w.tryPlugin(t, "", "drain", "node-1", "--force", "--timeout=20s")
	if got.code != 1 || !strings.Contains(got.stdout, "pod/box evicted\n") {
		t.Errorf("got %+v", got)
	}
	w.await(t, "files", `jsonpath={.status.conditions[?(@.type=="DisruptionTarget")].reason}`, regexp.MustCompile("^EvictionByEvictionAPI$"))
	w.kubectl(t, "patch", "ppo/files", "--type=json", "-p", `[{"op":"remove","path":"/metadata/finalizers"}]`)
	w.expect(t, fmt.Sprintf("node/%[1]s already cordoned\nnode/%[1]s drained\n", "node-1"), "drain", "node-1", "--force")
	w.expect(t, "node/node-1 uncordoned\n", "uncordon", "node-1")
}
