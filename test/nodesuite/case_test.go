// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// area is one file of cases.
type area struct {
	Area  string     `json:"area"`
	Cases []testCase `json:"cases"`
}

// testCase is a pod and what must hold of it. In its text $HOST is a folder of its own on the node, $REGISTRY the registry that asks for
// a password, $NODE the node's name.
type testCase struct {
	Name string `json:"name"`
	// Needs names something that not every machine has; see needs.
	Needs string `json:"needs,omitempty"`
	// Host has files and, with a slash at the end, folders that are in $HOST at the start.
	Host map[string]string `json:"host,omitempty"`
	// Objects are made before the pod.
	Objects []map[string]any `json:"objects,omitempty"`
	// Meta is the pod's metadata beside name and namespace; Pod is its spec, of which the case may leave out what doesn't matter.
	Meta map[string]any `json:"meta,omitempty"`
	Pod  map[string]any `json:"pod"`
	// Refused says that the API server doesn't take the pod, with these words.
	Refused string `json:"refused,omitempty"`
	Steps   []step `json:"steps,omitempty"`
	// Slow gives the case more time to end.
	Slow bool `json:"slow,omitempty"`

	area, host string
}

// step is one thing that is done or waited for; what is set of it happens in this order.
type step struct {
	// Apply makes or replaces objects, Remove takes them away (kind and name), Patch is merged into the pod.
	Apply  []map[string]any `json:"apply,omitempty"`
	Remove []map[string]any `json:"remove,omitempty"`
	Patch  map[string]any   `json:"patch,omitempty"`
	// Touch makes a file in $HOST.
	Touch string `json:"touch,omitempty"`
	// Delete deletes the pod.
	Delete bool `json:"delete,omitempty"`
	// Until is waited for, Within (default 90s) at most. It is CEL, see expressions.
	Until  string `json:"until,omitempty"`
	Within string `json:"within,omitempty"`
	// Holds are true at that moment.
	Holds []string `json:"holds,omitempty"`
	// Stays is true from then on For this long.
	Stays string `json:"stays,omitempty"`
	For   string `json:"for,omitempty"`
}

// loadCases reads all tables; $REGISTRY and $NODE are filled in, $HOST is when a case runs.
func loadCases(t *testing.T, registry string) []testCase {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []testCase
	seen := map[string]bool{}
	for _, file := range files {
		if filepath.Base(file) == "not-yet.yaml" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var a area
		text := strings.NewReplacer("$REGISTRY", registry, "$NODE", nodeName).Replace(string(data))
		if err := yaml.UnmarshalStrict([]byte(text), &a); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range a.Cases {
			c.area = a.Area
			if seen[c.id()] {
				t.Errorf("%s: there are two cases %q", file, c.id())
			}
			seen[c.id()] = true
			out = append(out, c)
		}
	}
	return out
}

// parseCase reads one case that stands in the code.
func parseCase(t *testing.T, text string) testCase {
	t.Helper()
	var c testCase
	if err := yaml.UnmarshalStrict([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *testCase) id() string { return c.area + ": " + c.Name }

// withHost fills in the case's folder.
func (c testCase) withHost(t *testing.T, host string) testCase {
	t.Helper()
	data, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out := testCase{area: c.area, host: host}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(data), "$HOST", host)), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// prepareHost makes the case's folder.
func (c *testCase) prepareHost(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(c.host, 0o755); err != nil {
		t.Fatal(err)
	}
	// Users of containers write here.
	if err := os.Chmod(c.host, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range sorted(c.Host) {
		path := filepath.Join(c.host, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o777)
		} else {
			err = os.WriteFile(path, []byte(c.Host[name]), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sorted(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// complete fills in what cases leave out: one second of grace, the test's image, and the name main.
func (c *testCase) complete() map[string]any {
	pod := map[string]any{"nodeName": nodeName, "terminationGracePeriodSeconds": 1}
	for k, v := range c.Pod {
		pod[k] = v
	}
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := pod[list].([]any)
		for _, each := range containers {
			container, ok := each.(map[string]any)
			if !ok {
				continue
			}
			if _, ok := container["image"]; !ok {
				container["image"] = testImage
			}
			if _, ok := container["name"]; !ok {
				container["name"] = "main"
			}
		}
	}
	if pod["nodeName"] == "" {
		delete(pod, "nodeName")
	}
	return pod
}

func duration(t *testing.T, text string, otherwise time.Duration) time.Duration {
	t.Helper()
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(fmt.Errorf("reading a duration of the case: %w", err))
	}
	return d
}
