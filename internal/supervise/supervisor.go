// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

// Runner starts one generation of a program.
type Runner interface {
	// Start returns when the program is ready, or with an error after having
	// ended whatever it started. The context bounds the start alone.
	Start(ctx context.Context) (Instance, error)
}

// Instance is one running generation of a program.
type Instance interface {
	// PID is the process id.
	PID() int
	// Done is closed when the process has ended.
	Done() <-chan struct{}
	// Err says how the process ended; call it after Done.
	Err() error
	// Stop ends the process gracefully, then by force. It returns once the
	// process is gone, is bounded in time and may be called twice.
	Stop(ctx context.Context) error
}

// State is where a supervised process stands.
type State string

// The states in the order in which a process meets them.
const (
	Starting   State = "Starting"
	Running    State = "Running"
	Restarting State = "Restarting" // it died, and is started again after Event.Delay
	Failed     State = "Failed"     // it died too often; the supervisor has given up
	Stopped    State = "Stopped"
)

// Event reports a change of state.
type Event struct {
	Name  string
	State State
	// PID is set while Running.
	PID int
	// Err says why, for Restarting and Failed.
	Err error
	// Delay is how long the supervisor waits before the next start.
	Delay time.Duration
	// Log holds the last lines that the process logged, for Restarting and Failed.
	Log []string
}

// Options are the supervisor's own settings; all are optional.
type Options struct {
	// Policy defaults to DefaultPolicy.
	Policy *Policy
	// OnEvent is told of each change of state, from one goroutine at a time.
	OnEvent func(Event)
	// LogFile is where the last lines for Event.Log are read; it is kept below LogLimit bytes.
	LogFile string
	// LogLimit bounds LogFile in bytes; it defaults to DefaultLogLimit.
	LogLimit int64
	// Clock is the real one unless a test brings its own.
	Clock clock.WithTicker
}

// StartError says that a process could not be started, with the last lines of
// its log.
type StartError struct {
	Name string
	Err  error
	Log  []string
}

// Error is one sentence, followed by the log lines, if there are any.
func (e *StartError) Error() string {
	return fmt.Sprintf("starting %s: %v%s", e.Name, e.Err, logLines(e.Log))
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// GaveUpError says that a process died too often to be started again.
type GaveUpError struct {
	Name string
	Err  error
	Log  []string
}

// Error is one sentence, followed by the log lines, if there are any.
func (e *GaveUpError) Error() string {
	return fmt.Sprintf("%s is not restarted any more: %v%s", e.Name, e.Err, logLines(e.Log))
}

// Unwrap returns the cause.
func (e *GaveUpError) Unwrap() error { return e.Err }

func logLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "; its last log lines:\n  " + strings.Join(lines, "\n  ")
}

// Supervisor keeps one program running. Its methods are safe for concurrent use.
type Supervisor struct {
	name   string
	runner Runner
	opts   Options
	policy Policy

	failed  chan error
	started atomic.Bool

	mu       sync.Mutex
	current  Instance
	restarts int
	cancel   context.CancelFunc
	watched  chan struct{} // closed when the watching goroutine has ended

	// emitting keeps events in order and one at a time.
	emitting sync.Mutex
}

// New returns a supervisor that has started nothing yet.
func New(name string, runner Runner, opts Options) *Supervisor {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.LogLimit == 0 {
		opts.LogLimit = DefaultLogLimit
	}
	policy := DefaultPolicy
	if opts.Policy != nil {
		policy = *opts.Policy
	}
	return &Supervisor{name: name, runner: runner, opts: opts, policy: policy, failed: make(chan error, 1)}
}

// Run starts a process and supervises it until Stop. The log file that the
// supervisor reads is the process' own.
func Run(ctx context.Context, p Process, opts Options) (*Supervisor, error) {
	if opts.LogFile == "" {
		opts.LogFile = p.LogFile
	}
	s := New(p.Name, &p, opts)
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Start starts the program and returns when it is ready; supervision goes on
// in the background until Stop. The first start is tried once: a program that
// cannot start at all is an error for the caller, not a reason to wait. The
// error is a *StartError. The context bounds the first start alone.
func (s *Supervisor) Start(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return fmt.Errorf("starting %s: it was started before", s.name)
	}
	if err := rotateLog(s.opts.LogFile); err != nil {
		return &StartError{Name: s.name, Err: err}
	}
	s.emit(Event{State: Starting})
	instance, err := s.runner.Start(ctx)
	if err != nil {
		return &StartError{Name: s.name, Err: err, Log: s.tail()}
	}

	watchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	s.mu.Lock()
	s.current, s.cancel, s.watched = instance, cancel, watched
	s.mu.Unlock()
	s.emit(Event{State: Running, PID: instance.PID()})
	go func() {
		defer close(watched)
		s.watch(watchCtx, instance)
	}()
	return nil
}

// watch waits for the death of each generation and starts the next.
func (s *Supervisor) watch(ctx context.Context, instance Instance) {
	var failures []time.Time
	logs := s.opts.Clock.NewTicker(time.Minute)
	defer logs.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-logs.C():
			// A log that cannot be shortened is met again in a minute.
			_ = truncateLog(s.opts.LogFile, s.opts.LogLimit)
			continue
		case <-instance.Done():
		}
		next, err := s.restart(ctx, instance.Err(), &failures)
		if err != nil {
			s.failed <- err
			return
		}
		if next == nil {
			return
		}
		instance = next
	}
}

// restart tries until the program runs again (the new instance), the
// supervisor is stopped (nil, nil), or the policy gives up (an error).
func (s *Supervisor) restart(ctx context.Context, cause error, failures *[]time.Time) (Instance, error) {
	s.setCurrent(nil)
	for {
		if ctx.Err() != nil {
			return nil, nil
		}
		if cause == nil {
			cause = fmt.Errorf("it ended without being asked to")
		}
		now := s.opts.Clock.Now()
		*failures = append(*failures, now)
		decision := s.policy.Decide(*failures, now)
		if decision.GiveUp {
			log := s.tail()
			err := fmt.Errorf("it failed %d times within %s: %w", decision.Recent, s.policy.Window, cause)
			s.emit(Event{State: Failed, Err: err, Log: log})
			return nil, &GaveUpError{Name: s.name, Err: err, Log: log}
		}
		s.emit(Event{State: Restarting, Err: cause, Delay: decision.Delay, Log: s.tail()})
		select {
		case <-ctx.Done():
			return nil, nil
		case <-s.opts.Clock.After(decision.Delay):
		}
		s.emit(Event{State: Starting})
		instance, err := s.runner.Start(ctx)
		if err != nil {
			cause = err
			continue
		}
		if !s.setCurrent(instance) {
			// Stop came between: it saw no instance to stop, so it is ours to end.
			_ = instance.Stop(context.WithoutCancel(ctx))
			return nil, nil
		}
		s.emit(Event{State: Running, PID: instance.PID()})
		return instance, nil
	}
}

// setCurrent returns false when the supervisor has been stopped meanwhile.
func (s *Supervisor) setCurrent(instance Instance) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil {
		return false
	}
	if instance != nil {
		s.restarts++
	}
	s.current = instance
	return true
}

// Stop ends supervision and the program. It returns when the program is gone;
// the context bounds the wait, after which the program is killed. Stopping
// what was never started, or twice, does nothing.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.mu.Lock()
	cancel, watched, current := s.cancel, s.watched, s.current
	s.cancel, s.current = nil, nil
	s.mu.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	var err error
	if current != nil {
		err = current.Stop(ctx)
	}
	<-watched
	s.emit(Event{State: Stopped})
	if err != nil {
		return fmt.Errorf("stopping %s: %w", s.name, err)
	}
	return nil
}

// Name is the name that events carry.
func (s *Supervisor) Name() string { return s.name }

// Failed yields one error when the supervisor has given up.
func (s *Supervisor) Failed() <-chan error { return s.failed }

// PID is the id of the running process, or 0 when none runs just now.
func (s *Supervisor) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return 0
	}
	return s.current.PID()
}

// Restarts counts how often the program was started again.
func (s *Supervisor) Restarts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

func (s *Supervisor) emit(e Event) {
	if s.opts.OnEvent == nil {
		return
	}
	s.emitting.Lock()
	defer s.emitting.Unlock()
	e.Name = s.name
	s.opts.OnEvent(e)
}

func (s *Supervisor) tail() []string {
	return Tail(s.opts.LogFile, 10)
}
