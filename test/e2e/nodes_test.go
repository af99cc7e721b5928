// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// testTwoNodes runs the sample on two nodes with networks of their own: the pods are spread, the address answers from
// this machine, and nothing is left of the networks afterwards.
func testTwoNodes(t *testing.T) {
	m := realMachine(t)
	start(t, m, "--nodes", "2")
	applySample(t, m)
	scale(t, m, 4)
	nodes := strings.Fields(kubectl(t, m, "get", "ppo", "-n", "hello", "-o", "jsonpath={.items[*].spec.nodeName}"))
	seen := map[string]int{}
	for _, n := range nodes {
		seen[n]++
	}
	if seen["node-1"] == 0 || seen["node-2"] == 0 {
		t.Errorf("the pods are on %v: both nodes should have some", seen)
	}
	checkAddress(t, m)

	vip := strings.TrimSpace(kubectl(t, m, "get", "psvc/hello", "-n", "hello", "-o", "jsonpath={.spec.clusterIP}"))
	answered := map[string]bool{}
	eventually(t, time.Minute, func() error {
		body, err := ask("http://" + vip)
		if err != nil {
			return err
		}
		for _, p := range pods(t, m) {
			if strings.Contains(body, p.name) {
				answered[p.name] = true
			}
		}
		if len(answered) < 4 {
			return fmt.Errorf("%d of 4 pods, on both nodes, have answered on the address", len(answered))
		}
		return nil
	})
	for _, p := range pods(t, m) {
		if _, err := ask("http://" + p.ip + ":8080/healthz"); err != nil {
			t.Errorf("the machine does not reach %s: %v", p.name, err)
		}
	}
	checkNothingLeft(t, m)
}
