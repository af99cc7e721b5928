// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Root returns the folder of go.mod above the working folder.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working folder: run it in the repository")
		}
		dir = filepath.Dir(dir)
	}
}

// Machine is one `pinnace up`.
type Machine struct {
	// DataDir is its data folder.
	DataDir string
	// Ports of the API server and the image registry.
	APIPort, RegistryPort int
	// Log takes what it prints.
	Log io.Writer

	root string
	cmd  *exec.Cmd
	// reached holds, for each milestone, the time from the start of the program.
	mu      sync.Mutex
	output  strings.Builder
	changed chan struct{}
	done    chan struct{}
	exit    error
	started time.Time
	upAfter time.Duration
}

// New prepares a machine with a data folder and free ports. Nothing starts yet.
func New(dataDir string, log io.Writer) (*Machine, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	return &Machine{DataDir: dataDir, APIPort: ports[0], RegistryPort: ports[1], Log: log, root: root}, nil
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // held until all are found, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Command is `pinnace up` with this machine's folder and ports.
func (m *Machine) Command(args ...string) *exec.Cmd {
	base := []string{
		"up", "--data-dir", m.DataDir, "--assets-dir", filepath.Join(m.root, "bin/assets"),
		"--api-port", strconv.Itoa(m.APIPort), "--registry-port", strconv.Itoa(m.RegistryPort),
	}
	return exec.Command(filepath.Join(m.root, "bin/pinnace"), append(base, args...)...)
}

// Start runs `pinnace up` and waits until it says that it is up.
func (m *Machine) Start(ctx context.Context, args ...string) error {
	m.cmd = m.Command(args...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	m.cmd.Stderr = m.cmd.Stdout
	m.mu.Lock()
	m.output.Reset()
	m.changed, m.done, m.started, m.upAfter = make(chan struct{}, 1), make(chan struct{}), time.Now(), 0
	m.mu.Unlock()
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("starting pinnace up: %w", err)
	}
	go m.read(stdout)
	for {
		select {
		case <-m.changed:
			if m.UpAfter() > 0 {
				return nil
			}
		case <-m.done:
			return fmt.Errorf("pinnace up ended: %w\n%s", m.exit, m.Output())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("pinnace up was not up in time:\n%s", m.Output()), m.Kill())
		}
	}
}

// read follows the output until it ends.
func (m *Machine) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		fmt.Fprintln(m.Log, lines.Text())
		m.mu.Lock()
		m.output.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "Pinnace is up") {
			m.upAfter = time.Since(m.started)
		}
		m.mu.Unlock()
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
	m.exit = m.cmd.Wait()
	close(m.done)
}

// UpAfter is how long it took until all nodes were Ready; 0 before.
func (m *Machine) UpAfter() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.upAfter
}

// Output is what it has printed.
func (m *Machine) Output() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.output.String()
}

// Stop sends Ctrl-C's signal and waits for the end.
func (m *Machine) Stop(ctx context.Context) error {
	if m.cmd == nil || m.cmd.Process == nil {
		return nil
	}
	if err := m.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-m.done:
		return m.exit
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("pinnace up did not stop in time:\n%s", m.Output()), m.Kill())
	}
}

// Kill ends `pinnace up` itself with SIGKILL, as a crash would.
func (m *Machine) Kill() error {
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-m.done
	return nil
}

// PID is the id of `pinnace up`.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Process returns the id that the pid file of a process holds, or 0 while there is none.
func (m *Machine) Process(name string) int {
	data, err := os.ReadFile(filepath.Join(m.DataDir, "run", name+".pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), " ")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// Processes returns all processes that have a pid file, by name.
func (m *Machine) Processes() map[string]int {
	out := map[string]int{}
	files, _ := filepath.Glob(filepath.Join(m.DataDir, "run", "*.pid"))
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pid")
		if pid := m.Process(name); pid != 0 {
			out[name] = pid
		}
	}
	return out
}

// Kubectl runs the kubectl that was built with the assets as the administrator, with input on stdin if any.
func (m *Machine) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(m.root, "bin/assets/kubectl"), args...)
	return m.run(command, input)
}

// Pinnace runs bin/pinnace.
func (m *Machine) Pinnace(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(m.root, "bin/pinnace"), args...)
	return m.run(command, input)
}

// Plugin prepares bin/kubectl-pinnace as the administrator, for who wants to follow its output or stop it.
func (m *Machine) Plugin(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(m.root, "bin/kubectl-pinnace"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(m.DataDir, "kubeconfig"), "KUBECACHEDIR="+filepath.Join(m.DataDir, "cache"))
	return command
}

func (m *Machine) run(command *exec.Cmd, input string) (string, error) {
	command.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(m.DataDir, "kubeconfig"))
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(command.Args[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Path is a file of the repository.
func (m *Machine) Path(parts ...string) string {
	return filepath.Join(append([]string{m.root}, parts...)...)
}
