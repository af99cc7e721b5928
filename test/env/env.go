// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
)

// startLimit bounds the start of a server, in a machine that is busy with
// compiling other packages' tests.
const startLimit = 3 * time.Minute

// Env is a running API server.
type Env struct {
	// Config is the administrator's. It has no client-side rate limit.
	Config *rest.Config
	// Client reads and writes without a cache.
	Client client.Client
	// Kubeconfig is the path of the administrator's kubeconfig.
	Kubeconfig string
	// ControlPlane is for tests that stop or look at the processes.
	ControlPlane *controlplane.ControlPlane
	// CRDs are those that were installed.
	CRDs []*apiextensionsv1.CustomResourceDefinition
}

type settings struct {
	scheme      *runtime.Scheme
	crds        []string
	withoutCRDs bool
	controllers []string
	apiArgs     map[string]string
}

// Option changes what Start starts.
type Option func(*settings)

// WithScheme sets the client's scheme. Without it, the client knows upstream's
// kinds alone.
func WithScheme(scheme *runtime.Scheme) Option {
	return func(s *settings) { s.scheme = scheme }
}

// WithCRDs installs the CRDs of further files or folders.
func WithCRDs(paths ...string) Option {
	return func(s *settings) { s.crds = append(s.crds, paths...) }
}

// WithoutPinnaceCRDs leaves config/crd/bases out.
func WithoutPinnaceCRDs() Option {
	return func(s *settings) { s.withoutCRDs = true }
}

// WithControllerManager runs kube-controller-manager: with the generic loops,
// or with exactly those that are named, such as "deployment-controller" for an
// oracle.
func WithControllerManager(controllers ...string) Option {
	return func(s *settings) {
		s.controllers = controllers
		if len(controllers) == 0 {
			s.controllers = controlplane.GenericControllers
		}
	}
}

// WithAPIServerFlag sets a flag of kube-apiserver; the name has no dashes.
func WithAPIServerFlag(name, value string) Option {
	return func(s *settings) {
		if s.apiArgs == nil {
			s.apiArgs = map[string]string{}
		}
		s.apiArgs[name] = value
	}
}

// shared is the server of a package whose TestMain calls Main.
var shared struct {
	mu      sync.Mutex
	active  bool
	options []Option
	env     *Env
	err     error
}

// Main runs the tests of a package with one API server for all of them. The
// server starts with the first test that calls Start, so that pure tests need
// not wait for it, and stops after the last. It returns the exit code.
func Main(m *testing.M, options ...Option) int {
	shared.mu.Lock()
	shared.active, shared.options = true, options
	shared.mu.Unlock()

	code := m.Run()

	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.env != nil {
		if err := shared.env.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the API server of the tests:", err)
			code = max(code, 1)
		}
	}
	return code
}

// Start returns a running API server: the package's own, when TestMain calls
// Main, and otherwise one that is stopped when the test ends. Options of a
// shared server stand in Main; giving others here fails the test.
func Start(t testing.TB, options ...Option) *Env {
	t.Helper()
	assets := Assets(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.active {
		e, err := start(assets, options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.stop(); err != nil {
				t.Error(err)
			}
		})
		return e
	}
	if len(options) > 0 {
		t.Fatal("the API server is shared by the package: give the options to env.Main")
	}
	if shared.env == nil && shared.err == nil {
		shared.env, shared.err = start(assets, shared.options)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.env
}

func start(assets string, options []Option) (_ *Env, err error) {
	s := settings{scheme: clientgoscheme.Scheme}
	for _, option := range options {
		option(&s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	cp, err := controlplane.Start(ctx, controlplane.Options{
		Profile: controlplane.Ephemeral, Assets: assets, ExtraAPIServerArgs: s.apiArgs,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the API server of the tests: %w", err)
	}
	e := &Env{Config: cp.RESTConfig(), Kubeconfig: cp.KubeconfigPath(), ControlPlane: cp}
	e.Config.QPS = -1
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop())
		}
	}()
	if e.Client, err = client.New(e.Config, client.Options{Scheme: s.scheme}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if err := e.installCRDs(s); err != nil {
		return nil, err
	}
	if s.controllers != nil {
		if err := cp.StartControllerManager(ctx, s.controllers); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *Env) installCRDs(s settings) error {
	paths := slices.Clone(s.crds)
	if !s.withoutCRDs {
		root, err := Root()
		if err != nil {
			return err
		}
		bases := filepath.Join(root, "config", "crd", "bases")
		if _, err := os.Stat(bases); err == nil {
			paths = append(paths, bases)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	var err error
	e.CRDs, err = envtest.InstallCRDs(e.Config, envtest.CRDInstallOptions{
		Paths: paths, ErrorIfPathMissing: true, MaxTime: time.Minute, PollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("installing the CRDs of %v: %w", paths, err)
	}
	return nil
}

func (e *Env) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return e.ControlPlane.Stop(ctx)
}

// Namespace makes a namespace with a name of its own. It is marked for
// deletion when the test ends; without the namespace loop it stays, and its
// name is not used again.
func (e *Env) Namespace(t testing.TB) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	// The test's scheme may lack upstream's kinds.
	c, err := client.New(e.Config, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatalf("making a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.Delete(ctx, ns) // the server may be stopped already
	})
	return ns.Name
}

// Assets returns the folder with etcd, kube-apiserver and
// kube-controller-manager, or ends the test: with a failure when CI is set,
// where a skipped test would be heard by nobody, and else with a skip.
func Assets(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		root, err := Root()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, "bin", "assets")
	}
	for _, name := range []string{controlplane.Etcd, controlplane.APIServer, controlplane.ControllerManager} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			continue
		}
		word := fmt.Sprintf("%s has no %s: build the programs with `make assets`, or set KUBEBUILDER_ASSETS to a folder that has them", dir, name)
		if os.Getenv("CI") != "" {
			t.Fatal(word)
		}
		fmt.Fprintf(os.Stderr, "SKIPPED %s: %s\n", t.Name(), word)
		t.Skip(word)
	}
	return dir
}

// Root is the folder of the module that the test runs in: the nearest one
// above with a go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("there is no go.mod in %s or above", dir)
		}
	}
}
