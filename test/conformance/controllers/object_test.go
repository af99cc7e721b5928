// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// object is an object of either side, read by path.
type object struct{ *unstructured.Unstructured }

// at returns the value at a dotted path, nil when there is none.
func (o object) at(path string) any {
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, strings.Split(path, ".")...)
	return value
}

// num returns the number at a path, 0 when there is none.
func (o object) num(path string) int64 {
	switch n := o.at(path).(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return 0
}

func (o object) str(path string) string {
	text, _ := o.at(path).(string)
	return text
}

// condition returns status and reason of a condition, both empty when there is none.
func (o object) condition(kind string) (status, reason string) {
	list, _ := o.at("status.conditions").([]any)
	for _, item := range list {
		c, _ := item.(map[string]any)
		if c["type"] == kind {
			status, _ = c["status"].(string)
			reason, _ = c["reason"].(string)
			return status, reason
		}
	}
	return "", ""
}

// observed holds when the status is of the present generation.
func observed(o object) string {
	if o.num("status.observedGeneration") >= o.GetGeneration() {
		return ""
	}
	return fmt.Sprintf("generation %d isn't observed", o.GetGeneration())
}

// has holds when the counters of the status have these values: "readyReplicas=3 updatedReplicas=2", 0 for an absent one.
func has(counters string) condition {
	return func(o object) string {
		for _, one := range strings.Fields(counters) {
			name, want, _ := strings.Cut(one, "=")
			if got := fmt.Sprint(o.num("status." + name)); got != want {
				return fmt.Sprintf("%s is %s, not %s", name, got, want)
			}
		}
		return observed(o)
	}
}

// tells holds when a condition has a status, and a reason unless that is empty.
func tells(kind, status, reason string) condition {
	return func(o object) string {
		gotStatus, gotReason := o.condition(kind)
		if gotStatus == status && (reason == "" || gotReason == reason) {
			return ""
		}
		return fmt.Sprintf("condition %s is %q, %q", kind, gotStatus, gotReason)
	}
}

// where holds when the text at a path is that.
func where(path, want string) condition {
	return func(o object) string {
		if got := o.at(path); fmt.Sprint(got) != want {
			return fmt.Sprintf("%s is %v, not %s", path, got, want)
		}
		return ""
	}
}

// rolledOut holds when all pods are of the newest revision and available, and no other is left.
func rolledOut(n int) condition {
	return has(fmt.Sprintf("replicas=%d updatedReplicas=%[1]d readyReplicas=%[1]d availableReplicas=%[1]d terminatingReplicas=0", n))
}

// sized holds when that many pods are there and available; for kinds without revisions.
func sized(n int) condition {
	return has(fmt.Sprintf("replicas=%d readyReplicas=%[1]d availableReplicas=%[1]d terminatingReplicas=0", n))
}
