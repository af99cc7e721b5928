// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"

	"github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/test/machine"
)

// world is a machine that runs the pods of testdata, and the callers.
type world struct {
	*machine.Machine
	admin, reader *caller
}

// TestStreams is the whole way: client, API server, manager, agent, container runtime, container.
func TestStreams(t *testing.T) {
	w := newWorld(t)
	t.Run("logs", w.testLogs)
	for protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Run("exec", func(t *testing.T) { w.testExec(t, protocol) })
			t.Run("terminal", func(t *testing.T) { w.testTerminal(t, protocol) })
			t.Run("attach", func(t *testing.T) { w.testAttach(t, protocol) })
			t.Run("port-forward", func(t *testing.T) { w.testPortForward(t, protocol) })
			t.Run("who may not", func(t *testing.T) { w.testForbidden(t, protocol) })
		})
	}
	t.Run("ephemeral containers", w.testEphemeral)
	t.Run("eviction", w.testEviction)
	t.Run("strangers", w.testStrangers)
	t.Run("discovery", w.testDiscovery)
	t.Run("the agent's own paths", w.testAgent)
	t.Run("manager restart", w.testManagerRestart)
}

// TestNodesOfTheirOwnNetwork shows that agents are reached that have a network namespace each, and their runtimes' streams.
func TestNodesOfTheirOwnNetwork(t *testing.T) {
	w := newWorld(t, "--nodes", "2")
	w.kubectl(t, "apply", "-f", w.Path("test/subresources/testdata/second.yaml"))
	w.kubectl(t, "wait", "--for=condition=Ready", "ppo/second", "--timeout=90s")
	for protocol := range protocols {
		got := w.admin.exec(t.Context(), protocol, "second", "", strings.NewReader("hello\n"), "/testprog", "echo")
		if got.err != nil || got.stdout != "HELLO\nbye\n" {
			t.Errorf("%s: got %+v", protocol, got)
		}
		if got, err := w.admin.get(t.Context(), protocol, "second", 8080, "/x"); err != nil || got != "served /x" {
			t.Errorf("%s: got %q, %v", protocol, got, err)
		}
	}
	if got, err := w.admin.log(t.Context(), "second", ""); err != nil || !strings.HasPrefix(got, "serving\n") {
		t.Errorf("log: got %q, %v", got, err)
	}
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: real containers need root; run `sudo make e2e`")
	}
	dir, err := os.MkdirTemp("", "pinnace-subresources-")
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine.New(dir, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			tail(t, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the data folder: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := m.Start(ctx, args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
		defer cancel()
		if err := m.Stop(ctx); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Machine: m, admin: newCaller(t, config, ""), reader: newCaller(t, config, "reader")}
	w.loadProgram(t, "testprog", "")
	w.kubectl(t, "apply", "-f", w.Path("test/subresources/testdata/world.yaml"))
	w.kubectl(t, "wait", "--for=condition=Ready", "ppo/box", "ppo/counter", "--timeout=90s")
	w.kubectl(t, "wait", "--for=condition=Available", "apiservice/v1.subresources.pinnace.dev", "--timeout=60s")
	return w
}

// tail prints the ends of the logs, since their folder goes.
func tail(t *testing.T, dir string) {
	for _, name := range []string{"manager", "agent-node-1"} {
		data, err := os.ReadFile(filepath.Join(dir, "log", name+".log"))
		if err != nil {
			t.Log(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		t.Logf("--- the end of %s.log\n%s", name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
}

func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.Kubectl(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// loadProgram loads an image pinnace.dev/NAME:v1 of the test's program under that name, run by that user.
func (w *world) loadProgram(t *testing.T, name, user string) {
	t.Helper()
	dir := t.TempDir()
	program, archive := filepath.Join(dir, name), filepath.Join(dir, "image.tar")
	build := exec.Command("go", "build", "-o", program, w.Path("test/subresources/testprog"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test program: %v\n%s", err, out)
	}
	if err := image.BuildSingleBinary(program, "pinnace.dev/"+name+":v1", []string{"/" + name}, nil, user, archive); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Pinnace(t.Context(), "", "image", "load", "--data-dir", w.DataDir, archive); err != nil {
		t.Fatal(err)
	}
}

func (w *world) testLogs(t *testing.T) {
	var all []string
	for i := 1; i <= 10; i++ {
		all = append(all, fmt.Sprintf("line %d", i))
	}
	lines := func(list ...string) string { return strings.Join(list, "\n") + "\n" }
	for _, c := range []struct {
		name       string
		parameters []string
		want       string
	}{
		{"tail", []string{"tailLines=3"}, lines(all[7:]...)},
		{"tail none", []string{"tailLines=0"}, ""},
		{"limit", []string{"limitBytes=10"}, "line 1\nlin"},
		{"all", nil, lines(all...)},
		{"stdout", []string{"stream=Stdout"}, lines(all...)},
		{"stderr", []string{"stream=Stderr"}, ""},
		{"since a time to come", []string{"sinceTime=2100-01-01T00:00:00Z"}, ""},
		{"since long ago", []string{"sinceSeconds=3600", "tailLines=1"}, lines("line 10")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := w.admin.log(t.Context(), "counter", "main", c.parameters...)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	t.Run("timestamps", func(t *testing.T) {
		got, err := w.admin.log(t.Context(), "counter", "main", "tailLines=1", "timestamps=true")
		if pattern := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) line 10\n$`); err != nil || !pattern.MatchString(got) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("follow to the end", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w.kubectl(t, "delete", "ppo/slow", "--ignore-not-found", "--timeout=30s")
		w.kubectl(t, "apply", "-f", w.Path("test/subresources/testdata/slow.yaml"))
		w.await(t, "slow", `jsonpath={.status.containerStatuses[0].state.running.startedAt}`, regexp.MustCompile(`.`))
		got, err := w.admin.log(ctx, "slow", "", "follow=true")
		if want := 20; err != nil || strings.Count(got, "\n") != want || !strings.HasSuffix(got, "line 20\n") {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("previous", func(t *testing.T) {
		w.await(t, "crash", `jsonpath={.status.containerStatuses[0].restartCount}`, regexp.MustCompile(`[1-9]`))
		got, err := w.admin.log(t.Context(), "crash", "", "previous=true", "stream=Stderr")
		if err != nil || got != "so long\n" {
			t.Errorf("got %q, %v", got, err)
		}
		_, err = w.admin.log(t.Context(), "counter", "", "previous=true")
		if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `previous terminated container "main" in pod "counter" not found`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("mistakes", func(t *testing.T) {
		for _, c := range []struct {
			pod, container, parameter, want string
			is                              func(error) bool
		}{
			{"box", "", "", `a container name must be specified for pod box, choose one of: [web echo]`, apierrors.IsBadRequest},
			{"box", "none", "", `container none is not valid for pod box`, apierrors.IsBadRequest},
			{"none", "", "", `"none" not found`, apierrors.IsNotFound},
			{"counter", "", "tailLines=-1", `the parameter tailLines is "-1"`, apierrors.IsBadRequest},
			{"waiting", "", "", `container "main" in pod "waiting" is waiting to start`, apierrors.IsBadRequest},
		} {
			if c.pod == "waiting" {
				w.await(t, "waiting", `jsonpath={.status.containerStatuses[0].state.waiting.reason}`, regexp.MustCompile(`Image`))
			}
			_, err := w.admin.log(t.Context(), c.pod, c.container, c.parameter)
			if err == nil || !c.is(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s/%s %s: got %v, want %q", c.pod, c.container, c.parameter, err, c.want)
			}
		}
	})
}

// await waits until a field of a pod matches.
func (w *world) await(t *testing.T, pod, field string, want *regexp.Regexp) {
	t.Helper()
	w.awaitField(t, "ppo/"+pod, field, want)
}

func (w *world) awaitField(t *testing.T, object, field string, want *regexp.Regexp) {
	t.Helper()
	deadline, ticker := time.After(90*time.Second), time.NewTicker(200*time.Millisecond)
	defer ticker.Stop()
	for last := ""; ; {
		select {
		case <-deadline:
			t.Fatalf("%s of %s is %q", field, object, last)
		case <-ticker.C:
		}
		out, err := w.Kubectl(t.Context(), "", "get", object, "-o", field)
		if last = out; err == nil && want.MatchString(out) {
			return
		}
	}
}

func (w *world) testExec(t *testing.T, protocol string) {
	got := w.admin.exec(t.Context(), protocol, "box", "web", nil, "/testprog", "exit", "7")
	var code clientexec.ExitError
	if !errors.As(got.err, &code) || code.ExitStatus() != 7 || got.stderr != "so long\n" || got.stdout != "" {
		t.Errorf("exit 7: got %+v", got)
	}
	// The end of stdin reaches the program, which then ends by itself.
	got = w.admin.exec(t.Context(), protocol, "box", "web", strings.NewReader("one\ntwo\n"), "/testprog", "echo")
	if got.err != nil || got.stdout != "ONE\nTWO\nbye\n" {
		t.Errorf("echo: got %+v", got)
	}
	// Much of it, in both directions at once.
	much := strings.Repeat("all work and no play\n", 20_000)
	got = w.admin.exec(t.Context(), protocol, "box", "web", strings.NewReader(much), "/testprog", "echo")
	if got.err != nil || got.stdout != strings.ToUpper(much)+"bye\n" {
		t.Errorf("echo of %d bytes: got %d bytes, %v", len(much), len(got.stdout), got.err)
	}
	got = w.admin.exec(t.Context(), protocol, "box", "web", nil, "/no-such-program")
	if got.err == nil || !strings.Contains(got.err.Error(), "no such file or directory") {
		t.Errorf("no such program: got %v", got.err)
	}
	start := time.Now()
	const rounds = 10
	for range rounds {
		w.admin.exec(t.Context(), protocol, "box", "web", nil, "/testprog", "exit", "0")
	}
	t.Logf("one command takes %s on average", (time.Since(start) / rounds).Round(time.Millisecond))
	if got = w.admin.exec(t.Context(), protocol, "waiting", "main", nil, "/testprog"); got.err == nil {
		t.Error("a command ran in a container that doesn't")
	}
}

func (w *world) testTerminal(t *testing.T, protocol string) {
	sizes := []remotecommand.TerminalSize{{Width: 100, Height: 50}, {Width: 77, Height: 33}}
	got := w.admin.terminal(t.Context(), protocol, "box", "web", sizes, "/testprog", "size")
	if got.err != nil || !strings.HasSuffix(got.stdout, "33x77\r\n") {
		t.Errorf("got %+v", got)
	}
}

func (w *world) testAttach(t *testing.T, protocol string) {
	// The container's program reads on after we leave: stdinOnce isn't set. So leave when it has answered.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }()
	done := make(chan result, 1)
	go func() {
		got := w.admin.attach(ctx, protocol, "box", "echo", reader)
		_ = reader.CloseWithError(fmt.Errorf("attach ended: %w", errors.Join(got.err, io.EOF)))
		done <- got
	}()
	if _, err := writer.Write([]byte("hello from " + protocol + "\n")); err != nil {
		t.Fatal(err)
	}
	w.awaitLog(t, "box", "echo", "HELLO FROM "+strings.ToUpper(protocol))
	cancel()
	if got := <-done; !strings.Contains(got.stdout, "HELLO FROM "+strings.ToUpper(protocol)+"\n") {
		t.Errorf("got %+v", got)
	}
}

func (w *world) awaitLog(t *testing.T, pod, container, want string) {
	t.Helper()
	deadline, ticker := time.After(30*time.Second), time.NewTicker(200*time.Millisecond)
	defer ticker.Stop()
	for last := ""; ; {
		select {
		case <-deadline:
			t.Fatalf("the log of %s is %q", container, last)
		case <-ticker.C:
		}
		got, err := w.admin.log(t.Context(), pod, container)
		if last = got; err == nil && strings.Contains(got, want) {
			return
		}
	}
}

func (w *world) testPortForward(t *testing.T, protocol string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 3 {
		path := fmt.Sprintf("/%s/%d", protocol, i)
		got, err := w.admin.get(ctx, protocol, "box", 8080, path)
		if err != nil || got != "served "+path {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// testEphemeral adds a container to a pod that runs, as kubectl debug does.
func (w *world) testEphemeral(t *testing.T) {
	patch := `{"spec":{"ephemeralContainers":[{"name":"debug","image":"pinnace.dev/testprog:v1","args":["count","3"]}]}}`
	request := w.admin.plain.Patch(types.StrategicMergePatchType).Namespace("default").Resource("pods").Name("counter").SubResource("ephemeralcontainers")
	if err := request.Body([]byte(patch)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	w.await(t, "counter", `jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}`, regexp.MustCompile(`.`))
	if got, err := w.admin.log(t.Context(), "counter", "debug"); err != nil || got != "line 1\nline 2\nline 3\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func (w *world) testEviction(t *testing.T) {
	evict := func(pod string) error {
		body := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q}}`, pod)
		return w.admin.request(pod, "eviction").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
	}
	w.kubectl(t, "apply", "-f", w.Path("test/subresources/testdata/guarded.yaml"))
	w.kubectl(t, "wait", "--for=condition=Ready", "ppo/guarded", "ppo/free", "--timeout=90s")
	w.awaitField(t, "ppdb/guarded", "jsonpath={.status.currentHealthy}/{.status.desiredHealthy}", regexp.MustCompile("^1/1$"))
	if err := evict("guarded"); !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, "DisruptionBudget") {
		t.Errorf("beyond the budget: got %v", err)
	}
	if err := evict("free"); err != nil {
		t.Errorf("without a budget: got %v", err)
	}
	w.kubectl(t, "wait", "--for=delete", "ppo/free", "--timeout=60s")
	if err := evict("free"); !apierrors.IsNotFound(err) {
		t.Errorf("a pod that has gone: got %v", err)
	}
	err := w.reader.request("guarded", "eviction").Body([]byte(`{}`)).Do(t.Context()).Error()
	if !apierrors.IsForbidden(err) {
		t.Errorf("who may not: got %v", err)
	}
}

// testForbidden shows that who may read logs may do that and nothing else.
func (w *world) testForbidden(t *testing.T, protocol string) {
	if got, err := w.reader.log(t.Context(), "counter", "", "tailLines=1"); err != nil || got != "line 10\n" {
		t.Errorf("log: got %q, %v", got, err)
	}
	for what, got := range map[string]result{
		"exec":   w.reader.exec(t.Context(), protocol, "box", "web", nil, "/testprog", "exit", "0"),
		"attach": w.reader.attach(t.Context(), protocol, "box", "echo", nil),
	} {
		if got.err == nil || !strings.Contains(got.err.Error(), "forbidden") && !strings.Contains(got.err.Error(), "403") {
			t.Errorf("%s: got %+v", what, got)
		}
	}
	if got, err := w.reader.get(t.Context(), protocol, "box", 8080, "/"); err == nil {
		t.Errorf("port-forward: got %q", got)
	}
}

// testStrangers goes past the API server: who isn't its front proxy gets nothing, whatever the headers say, and at an agent
// who isn't the manager gets nothing either.
func (w *world) testStrangers(t *testing.T) {
	manager := "https://127.0.0.1:" + w.kubectl(t, "get", "apiservice/v1.subresources.pinnace.dev", "-o", "jsonpath={.spec.service.port}")
	agent := w.agentURL(t)
	log := "/apis/subresources.pinnace.dev/v1/namespaces/default/pods/counter/log"
	for _, c := range []struct {
		name, url, certificate string
		code                   int
	}{
		{"manager, no certificate", manager + log, "", 401},
		{"manager, the administrator's certificate", manager + log, "admin", 401},
		{"manager, an agent's certificate", manager + log, "client-agent-node-1", 401},
		{"manager, discovery without certificate", manager + "/apis", "", 401},
		{"manager, health", manager + "/readyz", "", 200},
		{"agent, no certificate", agent + "/containerLogs/default/counter/main", "", 401},
		{"agent, no certificate, pods", agent + "/pods", "", 401},
		{"agent, no certificate, no such path", agent + "/none", "", 401},
		{"agent, another circle's certificate", agent + "/pods", "registry-client", 401},
		{"agent, the front proxy's certificate", agent + "/pods", "front-proxy-client", 401},
		{"agent, an agent's certificate", agent + "/pods", "client-agent-node-1", 403},
		{"agent, an agent's certificate, exec", agent + "/exec/default/box/web?command=/testprog&output=1", "client-agent-node-1", 403},
		{"agent, the manager's certificate", agent + "/containerLogs/default/counter/main", "client-manager", 200},
		{"agent, health", agent + "/healthz", "", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body := w.get(t, c.url, c.certificate, http.Header{"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}})
			if code != c.code {
				t.Errorf("got %d, want %d: %s", code, c.code, body)
			}
		})
	}
	t.Run("agent, bearer tokens", func(t *testing.T) {
		w.kubectl(t, "create", "serviceaccount", "scraper")
		token := strings.TrimSpace(w.kubectl(t, "create", "token", "scraper"))
		header := http.Header{"Authorization": {"Bearer " + token}}
		if code, body := w.get(t, agent+"/metrics", "", header); code != 403 {
			t.Errorf("without a role: got %d: %s", code, body)
		}
		w.kubectl(t, "create", "clusterrole", "scraper", "--verb=get", "--resource=nodes.core.pinnace.dev/metrics")
		w.kubectl(t, "create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:scraper")
		deadline, ticker := time.After(20*time.Second), time.NewTicker(200*time.Millisecond)
		defer ticker.Stop()
		for {
			code, body := w.get(t, agent+"/metrics", "", header)
			if code == 200 && strings.Contains(body, "controller_runtime") {
				break
			}
			select {
			case <-deadline:
				t.Fatalf("with a role: got %d: %.300s", code, body)
			case <-ticker.C:
			}
		}
		if code, _ := w.get(t, agent+"/pods", "", header); code != 403 {
			t.Errorf("what the role doesn't say: got %d", code)
		}
		if code, _ := w.get(t, agent+"/metrics", "", http.Header{"Authorization": {"Bearer " + token + "x"}}); code != 401 {
			t.Errorf("a false token: got %d", code)
		}
	})
}

func (w *world) agentURL(t *testing.T) string {
	t.Helper()
	return "https://" + w.kubectl(t, "get", "pno/node-1", "-o",
		`jsonpath={.status.addresses[0].address}:{.status.daemonEndpoints.kubeletEndpoint.Port}`)
}

// get asks a server directly, with one of the certificates of the data folder.
func (w *world) get(t *testing.T, url, certificate string, header http.Header) (int, string) {
	t.Helper()
	// It is the server that is tested.
	config := &tls.Config{InsecureSkipVerify: true}
	if certificate != "" {
		pki := filepath.Join(w.DataDir, "pki", certificate)
		pair, err := tls.LoadX509KeyPair(pki+".crt", pki+".key")
		if err != nil {
			t.Fatal(err)
		}
		// Given so, it is sent although the server may not ask for its authority.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func (w *world) testDiscovery(t *testing.T) {
	var list struct{ Resources []struct{ Name string } }
	if err := json.Unmarshal([]byte(w.kubectl(t, "get", "--raw", "/apis/subresources.pinnace.dev/v1")), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range list.Resources {
		names = append(names, r.Name)
	}
	for _, want := range []string{"pods/attach", "pods/exec", "pods/log", "pods/portforward"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
	// What walks through all kinds mustn't stumble over it: the namespace controller does, and kubectl.
	w.kubectl(t, "create", "namespace", "gone")
	w.kubectl(t, "delete", "namespace", "gone", "--timeout=60s")
	w.kubectl(t, "api-resources")
}

func (w *world) testAgent(t *testing.T) {
	agent := w.agentURL(t)
	code, body := w.get(t, agent+"/pods", "admin", nil)
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != 200 || len(list.Items) < 4 || list.Items[0].Metadata.Name != "box" {
		t.Errorf("/pods: got %d, %v: %.300s", code, err, body)
	}
	for path, want := range map[string]string{
		"/metrics":          `controller_runtime_reconcile_total{controller="agent"`,
		"/metrics/resource": `container_cpu_usage_seconds_total{container="web",namespace="default",pod="box"}`,
		"/metrics/cadvisor": `container_memory_working_set_bytes{`,
		"/stats/summary":    `"podRef"`,
	} {
		if code, body := w.get(t, agent+path, "admin", nil); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d without %s: %.2000s", path, code, want, body)
		}
	}
}

// testManagerRestart shows that the API comes back on another port.
func (w *world) testManagerRestart(t *testing.T) {
	process, err := os.FindProcess(w.Process("manager"))
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.awaitLog(t, "counter", "main", "line 10")
}
