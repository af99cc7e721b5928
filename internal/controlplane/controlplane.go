// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// ControlPlane is a control plane that runs. Its methods are safe for
// concurrent use.
type ControlPlane struct {
	options    Options
	layout     layout
	certs      *certificates
	admin      *rest.Config
	kubeconfig string
	ports      etcdPorts
	files      serverFiles
	failed     chan error

	mu          sync.Mutex
	plane       envtest.ControlPlane    // the generation that runs, or ran last
	supervisors []*supervise.Supervisor // in the order of their start
	endRenewal  func()
	stopped     bool
}

// Start starts a control plane and returns when its API answers. What was
// started is stopped again when a later step fails. The context bounds the
// start; the control plane then runs until Stop.
//
// The caller of the durable profile holds the data folder (LockDataDir).
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{options: o, failed: make(chan error, 1), endRenewal: func() {}}
	if err := cp.start(ctx); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, explain(errors.Join(err, cp.Stop(stopCtx)), cp.layout.dir)
	}
	return cp, nil
}

func (cp *ControlPlane) start(ctx context.Context) error {
	durable := cp.options.Profile == Durable
	if err := cp.step(ctx, "Preparing the data folder", cp.prepare); err != nil {
		return err
	}
	if err := cp.step(ctx, "Starting etcd", cp.startEtcd); err != nil {
		return err
	}
	if err := cp.step(ctx, "Starting kube-apiserver", cp.startAPIServer); err != nil {
		return err
	}
	if durable {
		cp.renewCertificates()
	}
	if !durable || cp.options.NoControllerManager {
		return nil
	}
	return cp.StartControllerManager(ctx, GenericControllers)
}

// step runs one step of start or stop and reports it.
func (cp *ControlPlane) step(ctx context.Context, name string, do func(context.Context) error) error {
	done := cp.options.Progress(name)
	err := ctx.Err()
	if err == nil {
		err = do(ctx)
	}
	done(err)
	return err
}

// prepare does everything that needs no process: folders, what an earlier run
// left behind, the port, certificates and configuration.
func (cp *ControlPlane) prepare(ctx context.Context) error {
	dir := cp.options.DataDir
	if cp.options.Profile == Ephemeral {
		var err error
		if dir, err = os.MkdirTemp("", "pinnace-controlplane-"); err != nil {
			return fmt.Errorf("making a temporary folder: %w", err)
		}
	}
	cp.layout = layout{dir}
	cp.kubeconfig = cp.layout.adminKubeconfig()
	cp.certs = &certificates{dir: cp.layout.pki(), now: cp.options.Clock.Now}
	if err := cp.layout.prepare(cp.options.Profile == Durable); err != nil {
		return err
	}
	if cp.options.Profile == Ephemeral {
		return nil
	}
	if err := cp.layout.endLeftovers(ctx); err != nil {
		return err
	}
	if err := checkPort(cp.options); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	cp.ports = etcdPorts{client: ports[0], peer: ports[1], metrics: ports[2]}
	if err := cp.certs.serverCertificates(cp.options); err != nil {
		return err
	}
	if cp.files.encryption, err = cp.layout.ensureEncryption(cp.options.PlainSecrets); err != nil {
		return err
	}
	if cp.files.authentication, err = cp.layout.ensureAuthentication(); err != nil {
		return err
	}
	return cp.writeAdminKubeconfig()
}

// endLeftovers ends the processes of an earlier run on this folder that was
// killed, dependents first: kube-apiserver doesn't end once etcd is gone.
func (l layout) endLeftovers(ctx context.Context) error {
	for _, process := range []string{ControllerManager, APIServer, Etcd} {
		if _, err := supervise.EndLeftover(ctx, l.pid(process), l.ours(process), serverStopTimeout); err != nil {
			return err
		}
	}
	return nil
}

// admin is a member of the group that RBAC cannot lock out.
var adminUser = envtest.User{Name: "admin", Groups: []string{"system:masters"}}

// writeAdminKubeconfig also keeps it fresh: it carries its certificate in itself.
func (cp *ControlPlane) writeAdminKubeconfig() error {
	ca, err := cp.certs.open(ClusterAuthority)
	if err != nil {
		return err
	}
	pair, err := cp.certs.client("admin", adminUser, func() error {
		return writeKubeconfig(cp.kubeconfig, adminUser.Name, cp.admin, true)
	})
	if err != nil {
		return err
	}
	cp.admin = restConfig(cp.options.clientHost(), ca.CertFile(), pair)
	return writeKubeconfig(cp.kubeconfig, adminUser.Name, cp.admin, true)
}

func (cp *ControlPlane) startEtcd(ctx context.Context) error {
	return cp.startServer(ctx, Etcd, cp.options.Tuning.EtcdGOGC, func() (server, *string, *io.Writer, *io.Writer) {
		etcd := ephemeralEtcd(cp.layout)
		if cp.options.Profile == Durable {
			etcd = durableEtcd(cp.layout, cp.ports)
		}
		cp.plane.Etcd = etcd
		return etcd, &etcd.Path, &etcd.Out, &etcd.Err
	})
}

func (cp *ControlPlane) startAPIServer(ctx context.Context) error {
	err := cp.startServer(ctx, APIServer, cp.options.Tuning.APIServerGOGC, func() (server, *string, *io.Writer, *io.Writer) {
		api := ephemeralAPIServer(cp.options, cp.layout, cp.plane.Etcd.URL)
		if cp.options.Profile == Durable {
			api = durableAPIServer(cp.options, cp.layout, cp.ports, cp.files, &authn{certificates: cp.certs})
		}
		cp.plane.APIServer = api
		return api, &api.Path, &api.Out, &api.Err
	})
	if err != nil || cp.options.Profile == Durable {
		return err
	}
	user, err := cp.plane.AddUser(adminUser, nil)
	if err != nil {
		return fmt.Errorf("making the administrator: %w", err)
	}
	cp.admin = user.Config()
	return writeKubeconfig(cp.kubeconfig, adminUser.Name, cp.admin, true)
}

// startServer runs one of envtest's servers under a supervisor. render returns
// a fresh server, and where its program and output go.
func (cp *ControlPlane) startServer(ctx context.Context, name, gogc string, render func() (s server, path *string, out, err *io.Writer)) error {
	script := cp.layout.script(name)
	if err := writeScript(script, startScript(filepath.Join(cp.options.Assets, name), cp.layout.pid(name), gogc)); err != nil {
		return err
	}
	return cp.supervise(ctx, name, &envtestRunner{
		pidFile: cp.layout.pid(name),
		logFile: cp.layout.log(name),
		make: func(log io.Writer) server {
			cp.mu.Lock()
			defer cp.mu.Unlock()
			s, path, stdout, stderr := render()
			*path, *stdout, *stderr = script, log, log
			return s
		},
	})
}

// StartControllerManager starts kube-controller-manager with the given loops.
// The durable profile has done so already, unless Options said otherwise.
func (cp *ControlPlane) StartControllerManager(ctx context.Context, controllers []string) error {
	return cp.step(ctx, "Starting kube-controller-manager", func(ctx context.Context) error {
		return cp.startControllerManager(ctx, controllers)
	})
}

func (cp *ControlPlane) startControllerManager(ctx context.Context, controllers []string) error {
	if slices.ContainsFunc(cp.Processes(), func(p ProcessStatus) bool { return p.Name == ControllerManager }) {
		return errors.New("kube-controller-manager runs already")
	}
	program := filepath.Join(cp.options.Assets, ControllerManager)
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("finding %s (`make assets` builds it): %w", ControllerManager, err)
	}
	args, err := cp.controllerManagerArgs(controllers)
	if err != nil {
		return err
	}
	return cp.supervise(ctx, ControllerManager, &supervise.Process{
		Name: ControllerManager, Path: program, Args: args,
		Env:          []string{"GOGC=" + cp.options.Tuning.ControllerManagerGOGC},
		LogFile:      cp.layout.log(ControllerManager),
		PIDFile:      cp.layout.pid(ControllerManager),
		StopTimeout:  serverStopTimeout,
		OrphanSignal: killSignal,
	})
}

func (cp *ControlPlane) controllerManagerArgs(controllers []string) ([]string, error) {
	const user = "system:kube-controller-manager"
	pkiDir := cp.layout.pki()
	if cp.options.Profile == Durable {
		kubeconfig, err := cp.Kubeconfig(ControllerManager, user)
		if err != nil {
			return nil, err
		}
		ca := filepath.Join(pkiDir, ClusterAuthority)
		return controllerManagerArgs(controllers, kubeconfig, ca+".crt", filepath.Join(pkiDir, "sa.key"), ca+".crt", ca+".key"), nil
	}
	kubeconfig := cp.layout.kubeconfig(ControllerManager)
	authenticated, err := cp.plane.AddUser(envtest.User{Name: user}, nil)
	if err != nil {
		return nil, fmt.Errorf("making the user %s: %w", user, err)
	}
	config := authenticated.Config()
	if err := writeKubeconfig(kubeconfig, user, config, true); err != nil {
		return nil, err
	}
	rootCA := filepath.Join(pkiDir, "serving-ca.crt")
	if err := pki.WriteFile(rootCA, config.CAData, 0o644); err != nil {
		return nil, fmt.Errorf("writing the serving authority: %w", err)
	}
	args := controllerManagerArgs(controllers, kubeconfig, rootCA, filepath.Join(pkiDir, "sa-signer.key"), "", "")
	// A test that waits for upstream's loops waits for what they do, not for their limits.
	return append(args, "--kube-api-qps=1000", "--kube-api-burst=2000"), nil
}

// supervise starts a process and keeps it in the order of starts.
func (cp *ControlPlane) supervise(ctx context.Context, name string, runner supervise.Runner) error {
	s := supervise.New(name, runner, supervise.Options{
		Policy:  cp.options.Policy,
		OnEvent: cp.onProcess,
		LogFile: cp.layout.log(name),
	})
	if err := s.Start(ctx); err != nil {
		return err
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.supervisors = append(cp.supervisors, s)
	return nil
}

func (cp *ControlPlane) onProcess(e supervise.Event) {
	if e.State == supervise.Failed {
		select {
		case cp.failed <- gaveUp(e, cp.layout.dir, fullBytes):
		default: // the first failure is the one to tell
		}
	}
	if e.State == supervise.Running && cp.options.ReturnStartupPages {
		// Where the kernel won't, nothing is lost. A process that has ended by
		// then is not found.
		time.AfterFunc(startupPagesAfter, func() { _ = supervise.ReturnFilePages(e.PID) })
	}
	if cp.options.OnProcess != nil {
		cp.options.OnProcess(e)
	}
}

// gaveUp says why a process isn't restarted any more. Of a full disk the log
// has much to tell, and no sentence.
func gaveUp(e supervise.Event, dir string, needed uint64) error {
	if err := checkFree(dir, needed); err != nil {
		return fmt.Errorf("%s is not restarted any more: %w", e.Name, err)
	}
	return &supervise.GaveUpError{Name: e.Name, Err: e.Err, Log: e.Log}
}

// startupPagesAfter leaves time for what follows a start: CRDs are installed,
// caches are filled.
const startupPagesAfter = 15 * time.Second

// renewCertificates looks at the certificates now and then until Stop.
func (cp *ControlPlane) renewCertificates() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	ticker := cp.options.Clock.NewTicker(renewEvery)
	report := cp.options.OnCertificate
	if report == nil {
		report = func(CertificateEvent) {}
	}
	go func() {
		defer close(ended)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C():
				cp.certs.renew(report)
			}
		}
	}()
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.endRenewal = func() { cancel(); <-ended }
}

// Stop stops all processes, dependents first, and is bounded in time: a
// process that doesn't end within 15 s is killed, and all at once when the
// context ends. Stopping twice does nothing.
func (cp *ControlPlane) Stop(ctx context.Context) error {
	cp.mu.Lock()
	if cp.stopped {
		cp.mu.Unlock()
		return nil
	}
	cp.stopped = true
	supervisors, endRenewal := slices.Clone(cp.supervisors), cp.endRenewal
	cp.mu.Unlock()

	endRenewal()
	var errs []error
	for _, s := range slices.Backward(supervisors) {
		done := cp.options.Progress("Stopping " + s.Name())
		err := s.Stop(ctx)
		done(err)
		errs = append(errs, err)
		_ = os.Remove(cp.layout.pid(s.Name()))
	}
	if cp.options.Profile == Ephemeral && cp.layout.dir != "" {
		errs = append(errs, os.RemoveAll(cp.layout.dir))
	}
	return errors.Join(errs...)
}

// Failed yields one error when a process died too often to be restarted.
func (cp *ControlPlane) Failed() <-chan error { return cp.failed }

// RESTConfig returns a copy of the administrator's client configuration.
func (cp *ControlPlane) RESTConfig() *rest.Config { return rest.CopyConfig(cp.admin) }

// KubeconfigPath is the administrator's kubeconfig, complete in itself.
func (cp *ControlPlane) KubeconfigPath() string { return cp.kubeconfig }

// DataDir is the folder in use: of the ephemeral profile, the temporary one.
func (cp *ControlPlane) DataDir() string { return cp.layout.dir }

// LogFile is where a process of the given name writes its log.
func (cp *ControlPlane) LogFile(process string) string { return cp.layout.log(process) }

// AuditLog is where kube-apiserver writes its audit log, if it has a policy.
func (cp *ControlPlane) AuditLog() string { return cp.layout.path("log", "audit.log") }

// Kubeconfig makes a kubeconfig for a process of this machine and returns its
// path: KUBECONFIGS/NAME, for the given user and groups. It names certificate
// files that are kept fresh while the control plane runs, and client-go takes
// up a renewed one by itself. For the durable profile only.
func (cp *ControlPlane) Kubeconfig(name, user string, groups ...string) (string, error) {
	if cp.options.Profile != Durable {
		return "", errors.New("making a kubeconfig: the ephemeral control plane has its users from RESTConfig")
	}
	ca, err := cp.certs.open(ClusterAuthority)
	if err != nil {
		return "", err
	}
	pair, err := cp.certs.client("client-"+name, envtest.User{Name: user, Groups: groups}, nil)
	if err != nil {
		return "", err
	}
	path := cp.layout.kubeconfig(name)
	return path, writeKubeconfig(path, user, restConfig(cp.options.clientHost(), ca.CertFile(), pair), false)
}

// Certificate makes a certificate of the given authority in the data folder,
// such as a registry's or an agent's, and keeps it fresh while the control
// plane runs. Servers that live long must read the files anew now and then.
// For the durable profile only.
func (cp *ControlPlane) Certificate(authority string, leaf pki.Leaf) (pki.Pair, error) {
	return cp.certs.ensure(authority, leaf, nil)
}

// AuthorityFile is the certificate file of an authority, which is made if it
// isn't there. For the durable profile only.
func (cp *ControlPlane) AuthorityFile(authority string) (string, error) {
	a, err := cp.certs.open(authority)
	if err != nil {
		return "", err
	}
	return a.CertFile(), nil
}

// ProcessStatus is one process of the control plane.
type ProcessStatus struct {
	Name string
	// PID is 0 while the process is being restarted.
	PID      int
	Restarts int
}

// Processes returns all processes in the order of their start.
func (cp *ControlPlane) Processes() []ProcessStatus {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	out := make([]ProcessStatus, len(cp.supervisors))
	for i, s := range cp.supervisors {
		out[i] = ProcessStatus{Name: s.Name(), PID: s.PID(), Restarts: s.Restarts()}
	}
	return out
}
