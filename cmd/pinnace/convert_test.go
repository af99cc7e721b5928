// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runConvertCommand runs `pinnace convert` in a folder that holds good.yaml, two.yml and bad.yaml.
func runConvertCommand(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	folder := t.TempDir()
	for name, content := range map[string]string{
		"good.yaml":    "apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n",
		"two.yml":      "kind: Deployment\napiVersion: apps/v1\n",
		"bad/bad.yaml": "kind: Pod: Pod\n",
	} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(folder)
	var out, errOut bytes.Buffer
	command := newConvertCommand()
	command.SilenceErrors = true
	command.SetArgs(args)
	command.SetIn(strings.NewReader(stdin))
	command.SetOut(&out)
	command.SetErr(&errOut)
	err = command.Execute()
	return out.String(), errOut.String(), err
}

func TestConvertCommand(t *testing.T) {
	const (
		pod        = "apiVersion: core.pinnace.dev/v1\nkind: Pod\n"
		account    = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"
		deployment = "kind: Deployment\napiVersion: apps.pinnace.dev/v1\n"
		note       = "convert: good.yaml document 2: ServiceAccount/a left as it is: Pinnace uses the API server's own ServiceAccount.\n"
	)
	for _, tc := range []struct {
		name, stdin    string
		args           []string
		stdout, stderr string
		err            string
	}{
		{name: "standard input", stdin: "apiVersion: v1\nkind: Pod\n", args: []string{}, stdout: pod},
		{name: "standard input by name", stdin: "apiVersion: v1\nkind: Pod\n", args: []string{"-f", "-"}, stdout: pod},
		{name: "files", args: []string{"-f", "two.yml", "-f", "good.yaml"}, stdout: deployment + "---\n" + pod + account, stderr: note},
		{name: "folder", args: []string{"-f", "."}, stdout: pod + account + "---\n" + deployment, stderr: note},
		{name: "reverse", stdin: pod, args: []string{"--reverse"}, stdout: "apiVersion: v1\nkind: Pod\n"},
		{name: "nothing in it", stdin: "", args: []string{}, stderr: "convert: there was no document in what was read.\n"},
		{name: "one is bad, so nothing is written", args: []string{"-R", "-f", "."}, err: "bad/bad.yaml line 1: "},
		{name: "argument", args: []string{"good.yaml"}, err: "-f good.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, err := runConvertCommand(t, tc.stdin, tc.args...)
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if diff := cmp.Diff(tc.stdout, stdout); diff != "" {
				t.Errorf("standard output (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.stderr, stderr); diff != "" {
				t.Errorf("standard error (-want +got):\n%s", diff)
			}
		})
	}
}
