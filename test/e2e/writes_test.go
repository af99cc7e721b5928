// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// The write budget of one pod's life from create to Ready.
const (
	budgetCreateAndBind = 2
	budgetStatus        = 2
	budgetEvents        = 2
)

// auditEvent is what is read of a line of the API server's audit log.
type auditEvent struct {
	Verb      string `json:"verb"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		APIGroup    string `json:"apiGroup"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// checkWrites counts the writes that the sample's pods have cost, from the API server's own audit log.
func checkWrites(t *testing.T, m *machine.Machine) {
	names := map[string]bool{}
	for _, p := range pods(t, m) {
		names[p.name] = true
	}
	file, err := os.Open(filepath.Join(m.DataDir, "log", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	counts := map[string]int{}
	failed := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // the last line may be half written
		}
		r := e.ObjectRef
		if r.Namespace != "hello" {
			continue
		}
		what := e.Verb + " " + r.Resource
		if r.Subresource != "" {
			what += "/" + r.Subresource
		}
		switch {
		case r.APIGroup == "core.pinnace.dev" && r.Resource == "pods" && (e.Verb == "create" || names[r.Name]):
		case r.Resource == "events":
		default:
			continue
		}
		if e.ResponseStatus.Code >= 400 {
			failed++
			t.Logf("refused with %d: %s %s", e.ResponseStatus.Code, what, r.Name)
		}
		counts[what]++
	}
	n := len(names)
	status := counts["update pods/status"] + counts["patch pods/status"]
	bind := counts["create pods"] + counts["update pods"] + counts["patch pods"]
	events := counts["create events"] + counts["patch events"] + counts["update events"]
	t.Logf("writes for %d pods: %v; refused: %d", n, counts, failed)
	if bind > budgetCreateAndBind*n {
		t.Errorf("%d writes to create and bind %d pods, the budget is %d each", bind, n, budgetCreateAndBind)
	}
	if status > budgetStatus*n {
		t.Errorf("%d status writes for %d pods, the budget is %d each", status, n, budgetStatus)
	}
	if events > budgetEvents*n {
		t.Errorf("%d events for %d pods, the budget is %d each", events, n, budgetEvents)
	}
	// Most pods are created on their node (docs/adr/0060), so that there is nothing to bind.
	if counts["create pods"] < n || status < n {
		t.Errorf("the audit log does not show the pods' lives: %v", counts)
	}
}
