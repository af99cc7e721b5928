// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/supervise"
	"github.com/pinnace-dev/pinnace/test/env"
)

// helperDir tells the test binary to be the program that is killed in
// TestKilledProgramLeavesNothing.
const helperDir, helperPort = "PINNACE_TEST_HELPER_DIR", "PINNACE_TEST_HELPER_PORT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		helper(dir)
	}
	os.Exit(m.Run())
}

// helper starts a control plane, says so on stdout, and waits to be killed.
func helper(dir string) {
	port, err := strconv.Atoi(os.Getenv(helperPort))
	if err == nil {
		_, err = controlplane.Start(context.Background(), controlplane.Options{DataDir: dir, APIPort: port})
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

// options are those of a durable control plane of this test.
func options(t *testing.T, dir string) controlplane.Options {
	t.Helper()
	return controlplane.Options{
		DataDir: dir, Assets: env.Assets(t), APIPort: freePort(t),
		OnProcess: func(e supervise.Event) {
			t.Logf("%s %s: %s %v", time.Now().Format("05.000"), e.Name, e.State, e.Err)
		},
	}
}

// freePort lies below the kernel's range for clients, for the server comes
// back on it after a restart.
func freePort(t *testing.T) int {
	t.Helper()
	for port := 12000 + os.Getpid()%4000; port < 20000; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func start(t *testing.T, o controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	begun := time.Now()
	cp, err := controlplane.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(begun).Round(time.Millisecond))
	t.Cleanup(func() { stop(t, cp) })
	return cp
}

func stop(t *testing.T, cp *controlplane.ControlPlane) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begun := time.Now()
	if err := cp.Stop(ctx); err != nil {
		t.Errorf("stopping: %v", err)
	}
	t.Logf("stopped in %s", time.Since(begun).Round(time.Millisecond))
}

func clientset(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func eventually(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v: %v", what, err, last)
	}
}

func pid(t *testing.T, cp *controlplane.ControlPlane, name string) int {
	t.Helper()
	for _, p := range cp.Processes() {
		if p.Name == name {
			return p.PID
		}
	}
	t.Fatalf("there is no process %s", name)
	return 0
}

// TestRestart sees that what people keep survives: certificates, objects, and
// tokens; and that it is guarded while it lies there.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir)
	o.AuditPolicyFile = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(o.AuditPolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := start(t, o)
	c := clientset(t, first.RESTConfig())
	const secret, public = "only-for-friends-93b1", "for-everybody-93b1"
	create(t, c, secret, public)
	createPinnaceSecret(t, first, secret)

	t.Run("service account tokens", func(t *testing.T) {
		eventually(t, "the default service account is there", func(ctx context.Context) error {
			_, err := c.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
			return err
		})
	})
	token := token(t, c)
	t.Run("etcd refuses strangers", func(t *testing.T) { refusesStrangers(t, pid(t, first, controlplane.Etcd)) })
	t.Run("files are closed to others", func(t *testing.T) { closedToOthers(t, dir) })
	t.Run("anonymous", func(t *testing.T) { anonymousSeesHealthAlone(t, first) })
	before := certificates(t, dir)
	stop(t, first)
	if log, err := os.ReadFile(first.AuditLog()); err != nil || !bytes.Contains(log, []byte(`"resource":"configmaps"`)) {
		t.Errorf("the audit log does not tell of the ConfigMap: %v", err)
	}

	t.Run("encryption at rest", func(t *testing.T) {
		if !storeHolds(t, dir, public) {
			t.Errorf("the store does not hold %q: this test cannot see a leak", public)
		}
		if storeHolds(t, dir, secret) {
			t.Errorf("the store holds the Secret in plain text")
		}
	})

	second := start(t, o)
	if diff := cmp.Diff(before, certificates(t, dir)); diff != "" {
		t.Errorf("the certificates changed with the restart (-before +after):\n%s", diff)
	}
	// Through the kubeconfig, as a user would.
	config, err := clientcmd.BuildConfigFromFlags("", second.KubeconfigPath())
	if err != nil {
		t.Fatal(err)
	}
	c = clientset(t, config)
	got, err := c.CoreV1().Secrets("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("reading the Secret after the restart: %v", err)
	}
	if string(got.Data["password"]) != secret {
		t.Errorf("the Secret is %q after the restart, want %q", got.Data["password"], secret)
	}
	review, err := c.AuthenticationV1().TokenReviews().Create(t.Context(),
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !review.Status.Authenticated {
		t.Errorf("a token from before the restart is refused: %s", review.Status.Error)
	}
}

func create(t *testing.T, c *kubernetes.Clientset, secret, public string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "kept", Namespace: "default"}
	eventually(t, "the default namespace is there", func(ctx context.Context) error {
		_, err := c.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"note": public}}, metav1.CreateOptions{})
		return err
	})
	if _, err := c.CoreV1().Secrets("default").Create(t.Context(),
		&corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"password": secret}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// createPinnaceSecret needs no more of Pinnace's API than the name of the kind.
func createPinnaceSecret(t *testing.T, cp *controlplane.ControlPlane, secret string) {
	t.Helper()
	anything := true
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "secrets.core.pinnace.dev"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "core.pinnace.dev", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "secrets", Singular: "secret", Kind: "Secret", ListKind: "SecretList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &anything}},
			}},
		},
	}
	if _, err := envtest.InstallCRDs(cp.RESTConfig(), envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{crd}}); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cp.RESTConfig(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "core.pinnace.dev/v1", "kind": "Secret",
		"metadata":   map[string]any{"namespace": "default", "name": "kept"},
		"stringData": map[string]any{"password": secret},
	}}); err != nil {
		t.Fatal(err)
	}
}

func token(t *testing.T, c *kubernetes.Clientset) string {
	t.Helper()
	request, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// flagValue reads a flag of a running process.
func flagValue(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range strings.Split(string(data), "\x00") {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
	}
	t.Fatalf("process %d has no flag %s", pid, name)
	return ""
}

func refusesStrangers(t *testing.T, etcd int) {
	if got := flagValue(t, etcd, "unsafe-no-fsync"); got != "false" {
		t.Errorf("etcd runs with unsafe-no-fsync=%s", got)
	}
	for _, flag := range []string{"listen-client-urls", "listen-peer-urls"} {
		u, err := url.Parse(flagValue(t, etcd, flag))
		if err != nil {
			t.Fatal(err)
		}
		if u.Scheme != "https" {
			t.Errorf("%s is %s, want https", flag, u)
		}
		conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a stranger doesn't care whom it talks to
		if err == nil {
			// In TLS 1.3 the client learns of the refusal with its first read.
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = conn.Write([]byte("GET /version HTTP/1.1\r\nHost: etcd\r\n\r\n"))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("a client without certificate at %s: got %v, want a refusal for want of a certificate", flag, err)
		}
	}
}

func closedToOthers(t *testing.T, dir string) {
	for _, path := range []string{"pki", "kubeconfigs", "config", "etcd", "log", "run"} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %o, want 700", path, info.Mode().Perm())
		}
	}
	keys, err := filepath.Glob(filepath.Join(dir, "pki", "*.key"))
	if err != nil || len(keys) == 0 {
		t.Fatalf("no keys found: %v", err)
	}
	for _, path := range append(keys, filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "config", "encryption.yaml")) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", path, info.Mode().Perm())
		}
	}
}

func anonymousSeesHealthAlone(t *testing.T, cp *controlplane.ControlPlane) {
	config := rest.AnonymousClientConfig(cp.RESTConfig())
	c := clientset(t, config)
	if _, err := c.RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context()); err != nil {
		t.Errorf("asking for the health: %v", err)
	}
	if _, err := c.RESTClient().Get().AbsPath("/version").DoRaw(t.Context()); err == nil {
		t.Error("a stranger may read more than the health")
	}
}

func certificates(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "pki", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, filepath.Join(dir, "kubeconfig")) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(path)] = string(data)
	}
	return out
}

// storeHolds looks for a text in all files of etcd.
func storeHolds(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(filepath.Join(dir, "etcd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || bytes.Contains(data, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKilledProcesses sees each process come back after kill -9, with the
// others living on.
func TestKilledProcesses(t *testing.T) {
	o := options(t, t.TempDir())
	cp := start(t, o)
	config := cp.RESTConfig()
	config.Timeout = 5 * time.Second
	c := clientset(t, config)
	create(t, c, "a", "b")

	for _, victim := range []string{controlplane.Etcd, controlplane.APIServer, controlplane.ControllerManager} {
		others := cp.Processes()
		killed := pid(t, cp, victim)
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, victim+" runs again", func(context.Context) error {
			if now := pid(t, cp, victim); now == 0 || now == killed {
				return errors.New("not yet")
			}
			return nil
		})
		name := "after-" + victim
		eventually(t, "the API answers after the death of "+victim, func(ctx context.Context) error {
			_, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			return err
		})
		eventually(t, "the loops work after the death of "+victim, func(ctx context.Context) error {
			_, err := c.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
			return err
		})
		for _, other := range others {
			if other.Name != victim && pid(t, cp, other.Name) != other.PID {
				t.Errorf("%s did not survive the death of %s", other.Name, victim)
			}
		}
	}
	if _, err := c.CoreV1().Secrets("default").Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("reading what was written before: %v", err)
	}
}

// TestMovedClock starts eight and a half months ago and lets the clock jump to
// today: every leaf is renewed, and kube-apiserver serves the new certificate
// without a restart.
func TestMovedClock(t *testing.T) {
	today := time.Now()
	clock := clocktesting.NewFakeClock(today.Add(-255 * 24 * time.Hour))
	renewals := make(chan controlplane.CertificateEvent, 20)
	o := options(t, t.TempDir())
	o.Clock, o.NoControllerManager = clock, true
	o.OnCertificate = func(e controlplane.CertificateEvent) { renewals <- e }
	cp := start(t, o)
	server := pid(t, cp, controlplane.APIServer)
	old := served(t, cp)
	oldConfig, err := os.ReadFile(cp.KubeconfigPath())
	if err != nil {
		t.Fatal(err)
	}

	clock.SetTime(today)
	renewed := map[string]bool{}
	for len(renewed) < 5 {
		select {
		case e := <-renewals:
			if e.Err != nil {
				t.Fatalf("renewing %s: %v", e.Name, e.Err)
			}
			renewed[e.Name] = true
		case <-time.After(30 * time.Second):
			t.Fatalf("only %v were renewed", renewed)
		}
	}
	want := map[string]bool{"apiserver": true, "etcd-server": true, "etcd-client": true, "front-proxy-client": true, "admin": true}
	if diff := cmp.Diff(want, renewed); diff != "" {
		t.Errorf("renewed certificates (-want +got):\n%s", diff)
	}
	eventually(t, "kube-apiserver serves the new certificate", func(context.Context) error {
		if now := served(t, cp); now.SerialNumber.Cmp(old.SerialNumber) == 0 {
			return errors.New("it serves the old one")
		}
		return nil
	})
	if now := pid(t, cp, controlplane.APIServer); now != server {
		t.Errorf("kube-apiserver was restarted: pid %d, was %d", now, server)
	}
	newConfig, err := os.ReadFile(cp.KubeconfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(oldConfig, newConfig) {
		t.Error("the kubeconfig still holds the old certificate")
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(newConfig)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clientset(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("using the new kubeconfig: %v", err)
	}
}

// served is the certificate that kube-apiserver shows.
func served(t *testing.T, cp *controlplane.ControlPlane) *x509.Certificate {
	t.Helper()
	host := strings.TrimPrefix(cp.RESTConfig().Host, "https://")
	conn, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only looks
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// TestStartFailsHalfWay sees that nothing stays behind, and that the error
// shows what kube-apiserver said.
func TestStartFailsHalfWay(t *testing.T) {
	o := options(t, t.TempDir())
	o.ExtraAPIServerArgs = map[string]string{"no-such-flag": "1"}
	var etcd int
	o.OnProcess = func(e supervise.Event) {
		if e.Name == controlplane.Etcd && e.State == supervise.Running {
			etcd = e.PID
		}
	}
	_, err := controlplane.Start(t.Context(), o)
	if err == nil {
		t.Fatal("it started with an unknown flag")
	}
	if !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("the error does not show kube-apiserver's own words: %v", err)
	}
	if etcd == 0 {
		t.Fatal("etcd never ran: the start failed too early for this test")
	}
	if err := syscall.Kill(etcd, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("etcd (pid %d) was left behind: %v", etcd, err)
	}
}

// TestKilledProgramLeavesNothing kills the program that started a control
// plane, and starts another on the same folder and port.
func TestKilledProgramLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir)
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), helperDir+"="+dir, helperPort+"="+strconv.Itoa(o.APIPort), "KUBEBUILDER_ASSETS="+o.Assets)
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	n, err := stdout.Read(buffer)
	if err != nil || string(buffer[:n]) != "started\n" {
		t.Fatalf("the helper says %q, %v", buffer[:n], err)
	}
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait() // it was killed: the error says so

	c := clientset(t, start(t, o).RESTConfig())
	if _, err := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}
