// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// TestOnSimulatedNodes needs no root: what a user does with nodes that run no containers.
func TestOnSimulatedNodes(t *testing.T) {
	t.Parallel()
	counting.Lock()
	counting.Unlock() //nolint:staticcheck // It is only waited for.
	m := newMachine(t)
	start(t, m, "--nodes", "3", "--runtime", "simulated")
	t.Run("a data folder in use is refused", func(t *testing.T) {
		wantAll(t, refused(t, m.Command("--runtime", "simulated")), fmt.Sprintf("pid %d", m.PID()), "--data-dir")
		kubectl(t, m, "get", "pno") // the first one is unharmed
	})
	t.Run("Online Boutique", func(t *testing.T) { checkBoutique(t, m) })
}

// checkBoutique is a user's first large application, from upstream's manifests to all Ready.
func checkBoutique(t *testing.T, m *machine.Machine) {
	corpus := m.Path("../shared/corpus/online-boutique")
	if _, err := os.Stat(corpus); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the corpus is missing: %v", err)
		}
		t.Skip("SKIPPED: ../shared/corpus is not beside the repository")
	}
	converted := pinnace(t, m, "convert", "-f", corpus)
	if _, err := m.Kubectl(t.Context(), converted, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, m, "wait", "--for=condition=Ready", "pdeploy", "--all", "--timeout=120s")

	out := kubectl(t, m, "get", "pdeploy", "--no-headers")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	files, _ := filepath.Glob(filepath.Join(corpus, "*.yaml"))
	if len(lines) < len(files) {
		t.Errorf("%d Deployments of %d manifests:\n%s", len(lines), len(files), out)
	}
	for _, line := range lines {
		if !regexp.MustCompile(`^\S+ +1/1 +1 +1 `).MatchString(line) {
			t.Errorf("not 1/1: %s", line)
		}
	}
	nodes := map[string]bool{}
	eventually(t, 10*time.Second, func() error {
		out := kubectl(t, m, "get", "ppo", "--no-headers", "-o", "wide")
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) < 7 || f[1] != "1/1" && f[1] != "2/2" || f[2] != "Running" {
				return fmt.Errorf("not Running and Ready: %s", line)
			}
			nodes[f[6]] = true
		}
		return nil
	})
	if len(nodes) != 3 {
		t.Errorf("the pods are on %d of 3 nodes", len(nodes))
	}
}
