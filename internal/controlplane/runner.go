// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// server is what envtest.Etcd and envtest.APIServer have in common.
type server interface {
	Start() error
	Stop() error
}

// envtestRunner starts generations of etcd or kube-apiserver through envtest.
// It is a supervise.Runner.
type envtestRunner struct {
	// make renders a fresh server whose output goes to the log.
	make    func(log io.Writer) server
	pidFile string
	logFile string
}

// writeScript writes a start script, unless it is there with this content.
func writeScript(path, content string) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, []byte(content)) {
		return nil
	}
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		return fmt.Errorf("writing the start script: %w", err)
	}
	return os.Chmod(path, 0o700)
}

// Start starts a generation and waits until envtest finds it well.
func (r *envtestRunner) Start(ctx context.Context) (supervise.Instance, error) {
	if err := os.Remove(r.pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the old pid file: %w", err)
	}
	log, err := supervise.OpenLog(r.logFile)
	if err != nil {
		return nil, err
	}
	g := &generation{server: r.make(log), log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	begun := time.Now()
	go g.run(r.pidFile, started)
	select {
	case err = <-started:
	case <-ctx.Done():
		// envtest knows no contexts, but notices when the process goes away.
		if id, idErr := supervise.ReadPIDFile(r.pidFile); idErr == nil {
			_ = id.End(context.WithoutCancel(ctx), 5*time.Second)
		}
		if err = <-started; err == nil {
			err = errors.Join(context.Cause(ctx), g.Stop(context.WithoutCancel(ctx)))
		} else {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		if errors.Is(err, errNotWell) {
			err = notWell(time.Since(begun))
		}
		return nil, err
	}
	return g, nil
}

var errNotWell = errors.New("it did not become ready")

// notWell says what envtest's one sentence for both cases leaves open.
func notWell(after time.Duration) error {
	if after < serverStartTimeout {
		return fmt.Errorf("%w: it ended %s after its start", errNotWell, after.Round(100*time.Millisecond))
	}
	return fmt.Errorf("%w within %s", errNotWell, serverStartTimeout)
}

// generation is one running server.
type generation struct {
	server server
	log    *os.File
	id     supervise.Identity
	done   chan struct{}

	stopOnce sync.Once
	stopErr  error
}

// run starts the server and stays until it has ended, on one thread of the
// operating system: the kernel ends the server when the thread that started
// it does (see startScript).
func (g *generation) run(pidFile string, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer g.log.Close()
	err := startBusy(g.server)
	if err == nil {
		g.id, err = supervise.ReadPIDFile(pidFile)
	} else if !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: %w", errNotWell, err)
	}
	if err != nil {
		_ = g.server.Stop() // ends what is half started; the first error tells more
		started <- err
		return
	}
	ended := g.id.Done()
	started <- nil
	<-ended
	close(g.done)
}

// startBusy retries while the script that was just written is still open in a
// process which another goroutine forked at that moment (ETXTBSY).
func startBusy(s server) error {
	var err error
	for range 20 {
		if err = s.Start(); !errors.Is(err, syscall.ETXTBSY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (g *generation) PID() int              { return g.id.PID }
func (g *generation) Done() <-chan struct{} { return g.done }

// Err has little to say: envtest keeps the exit status to itself.
func (g *generation) Err() error { return errors.New("it ended without being asked to") }

func (g *generation) Stop(ctx context.Context) error {
	g.stopOnce.Do(func() {
		stopped := make(chan error, 1)
		go func() { stopped <- g.server.Stop() }()
		select {
		case g.stopErr = <-stopped:
		case <-ctx.Done():
			g.stopErr = errors.Join(g.id.End(ctx, 0), <-stopped)
		}
		<-g.done
	})
	return g.stopErr
}
