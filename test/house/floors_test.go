// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/pinnace-dev/pinnace"

// TestFloorsRefuseForbiddenImports builds a small house beside the real one, with the real linter configuration,
// in which each file breaks one rule, and asks the linter for its verdict.
func TestFloorsRefuseForbiddenImports(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	linter := filepath.Join(root, "bin/tools/golangci-lint")
	if _, err := os.Stat(linter); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the linter isn't built: run make lint")
		}
		t.Skip("SKIPPED: the linter isn't built; make lint builds it")
	}

	breaches := []struct{ file, imports, refusal string }{
		{"api/core/v1/breach.go", module + "/internal/kube", "floor 1: api imports only"},
		{"internal/endpoints/breach.go", "context", "floor 2 and plan.go are pure: no context"},
		{"internal/placement/breach.go", module + "/internal/kube", "floor 2 never enters an adapter"},
		{"controllers/apps/deployment/plan.go", "net/http", "floor 2 and plan.go are pure: no I/O"},
		{"internal/volume/breach.go", module + "/internal/dataplane", "an adapter never knows another"},
		{"internal/kube/breach.go", module + "/controllers/placement", "a lower floor never calls up"},
		{"controllers/apps/replicaset/breach.go", module + "/controllers/placement", "a controller never calls another"},
		{"cmd/pinnace/breach.go", module + "/controllers/placement", "floor 6 holds flags and help"},
		{"controllers/batch/job/breach.go", module + "/test/lagging", "only tests enter test"},
	}
	// The same imports where they are right.
	allowed := []struct{ file, imports string }{
		{"api/apps/v1/fine.go", module + "/api/core/v1"},
		{"controllers/apps/deployment/fine.go", module + "/internal/kube"},
		{"controllers/agent/fine.go", module + "/internal/runtime/cri"},
		{"internal/runtime/cri/fine.go", module + "/internal/runtime"},
		{"internal/setup/fine.go", module + "/controllers/placement"},
		{"controllers/batch/job/fine_test.go", module + "/test/lagging"},
		{"test/lagging/fine.go", module + "/test/env"},
	}

	house := t.TempDir()
	write := func(file, content string) {
		t.Helper()
		path := filepath.Join(house, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	write(".golangci.yml", string(config))
	write("go.mod", "module "+module+"\n\ngo 1.26.0\n")
	add := func(file, imported string) {
		pkg := filepath.Base(filepath.Dir(file))
		write(file, "package "+pkg+"\n\nimport _ \""+imported+"\"\n")
		if rest, own := strings.CutPrefix(imported, module+"/"); own {
			stub := filepath.Join(rest, "stub.go")
			write(stub, "package "+filepath.Base(rest)+"\n")
		}
	}
	for _, b := range breaches {
		add(b.file, b.imports)
	}
	for _, a := range allowed {
		add(a.file, a.imports)
	}

	command := exec.Command(linter, "run", "--enable-only=depguard", "--max-same-issues=0", "--max-issues-per-linter=0", "./...")
	command.Dir = house
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err == nil {
		t.Fatal("the linter accepted a house full of breaches")
	}
	for _, b := range breaches {
		if !refused(out.String(), b.file, b.refusal) {
			t.Errorf("%s imports %s: no refusal with %q", b.file, b.imports, b.refusal)
		}
	}
	for _, a := range allowed {
		if refused(out.String(), a.file, "") {
			t.Errorf("%s may import %s and was refused", a.file, a.imports)
		}
	}
	if t.Failed() {
		t.Logf("the linter said:\n%s", out.String())
	}
}

func refused(output, file, reason string) bool {
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, file+":") && strings.Contains(line, reason) {
			return true
		}
	}
	return false
}

// TestEveryRoomHasAFloor sees to it that a new room can't escape the rules by not being named in them.
func TestEveryRoomHasAFloor(t *testing.T) {
	config, err := os.ReadFile("../../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	// Rooms that wire others or that everybody may enter.
	free := map[string]bool{"setup": true, "up": true, "version": true, "convert": true}
	for _, area := range []string{"internal", "controllers"} {
		rooms, err := os.ReadDir(filepath.Join("../..", area))
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range rooms {
			if !room.IsDir() || free[room.Name()] {
				continue
			}
			if !strings.Contains(string(config), `"**/`+area+"/"+room.Name()+"/") {
				t.Errorf("%s/%s stands on no floor: name it in .golangci.yml", area, room.Name())
			}
		}
	}
}
