// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Process describes a program that is run as a child. It is a Runner.
type Process struct {
	// Name is what events and errors call it.
	Name string
	// Path is the program; Args are its arguments without the program's name.
	Path string
	Args []string
	// Env is laid over this program's own environment, as KEY=value.
	Env []string
	// Dir is the working folder; empty means this program's own.
	Dir string
	// LogFile takes stdout and stderr; empty discards both.
	LogFile string
	// PIDFile, when set, records the process for EndLeftover.
	PIDFile string

	// Ready is asked every 50 ms until it returns nil; nil means ready at once.
	Ready func(ctx context.Context) error
	// StartTimeout bounds the wait for Ready; it defaults to 60 s.
	StartTimeout time.Duration
	// StopTimeout is how long the process may take after SIGTERM before it is
	// killed; it defaults to 10 s.
	StopTimeout time.Duration
	// StopSignal is sent first on Stop; it defaults to SIGTERM.
	StopSignal syscall.Signal
	// OrphanSignal is what the kernel sends to the process when this program
	// dies without stopping it. Zero leaves the process running.
	OrphanSignal syscall.Signal
	// Prepare, when set, may change the command just before it is started.
	Prepare func(*exec.Cmd)
}

// Start runs the program and waits until it is ready.
func (p *Process) Start(ctx context.Context) (Instance, error) {
	cmd, closeLog, err := p.command()
	if err != nil {
		return nil, err
	}
	c := &child{process: p, done: make(chan struct{})}
	started := make(chan error, 1)
	go c.run(cmd, started)
	err = <-started
	closeLog()
	if err != nil {
		return nil, err
	}
	if p.PIDFile != "" {
		// A process that has ended already has no pid to record: awaitReady says so.
		if err := WritePIDFile(p.PIDFile, c.pid); err != nil && !c.ended() {
			return nil, errors.Join(err, c.Stop(ctx))
		}
	}
	if err := c.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
	}
	return c, nil
}

func (p *Process) command() (*exec.Cmd, func(), error) {
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir = p.Dir
	cmd.Env = append(os.Environ(), p.Env...)
	// A process group of its own keeps Ctrl-C at the terminal from reaching the
	// child: it is for us to stop things in the right order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: p.OrphanSignal}
	closeLog := func() {}
	if p.LogFile != "" {
		log, err := OpenLog(p.LogFile)
		if err != nil {
			return nil, nil, err
		}
		cmd.Stdout, cmd.Stderr = log, log
		closeLog = func() { _ = log.Close() }
	}
	if p.Prepare != nil {
		p.Prepare(cmd)
	}
	return cmd, closeLog, nil
}

// child is a running Process.
type child struct {
	process *Process
	pid     int
	os      *os.Process
	done    chan struct{}
	exit    error // valid after done

	stopOnce sync.Once
	stopErr  error
}

// run starts the command and waits for it, on one thread of the operating
// system: the kernel sends the orphan signal when the *thread* that started
// the child ends, so that thread must live as long as the child.
func (c *child) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := startRetryingBusy(cmd.Start); err != nil {
		started <- fmt.Errorf("running %s: %w", cmd.Path, err)
		return
	}
	c.pid, c.os = cmd.Process.Pid, cmd.Process
	started <- nil
	err := cmd.Wait()
	if err == nil {
		err = errors.New("it ended by itself with exit status 0")
	}
	c.exit = err
	if c.process.PIDFile != "" {
		_ = os.Remove(c.process.PIDFile)
	}
	close(c.done)
}

// startRetryingBusy retries a start that fails since the program's file is
// still open for writing in a process that another goroutine forked at that
// moment (ETXTBSY): such a copy is closed within milliseconds.
func startRetryingBusy(start func() error) error {
	var err error
	for range 20 {
		if err = start(); !errors.Is(err, syscall.ETXTBSY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (c *child) awaitReady(ctx context.Context) error {
	if c.process.Ready == nil {
		return nil
	}
	timeout := c.process.StartTimeout
	if timeout == 0 {
		timeout = 60 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = c.process.Ready(ctx); last == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("it ended before it was ready: %w", c.exit)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("it was not ready within %s: %w", timeout, last)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) PID() int              { return c.pid }
func (c *child) Done() <-chan struct{} { return c.done }
func (c *child) Err() error            { return c.exit }

func (c *child) Stop(ctx context.Context) error {
	c.stopOnce.Do(func() { c.stopErr = c.stop(ctx) })
	return c.stopErr
}

func (c *child) stop(ctx context.Context) error {
	if c.ended() {
		return nil
	}
	signal, timeout := c.process.StopSignal, c.process.StopTimeout
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	if err := c.os.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling process %d: %w", c.pid, err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := c.os.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing process %d: %w", c.pid, err)
	}
	<-c.done
	return nil
}

// OursByArgument is a test for EndLeftover: the program has this file name,
// and one of its arguments is exactly the given one, such as a data folder.
func OursByArgument(program, argument string) func([]string) bool {
	return func(line []string) bool {
		return len(line) > 0 && filepath.Base(line[0]) == program && slices.Contains(line[1:], argument)
	}
}
