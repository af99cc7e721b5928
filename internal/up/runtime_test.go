// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
)

func TestRuntimeThatIsNone(t *testing.T) {
	cases := map[string]struct {
		serve func(l *net.UnixListener)
		want  []string
	}{
		"the socket of one that is dead": {
			func(l *net.UnixListener) {
				l.SetUnlinkOnClose(false)
				_ = l.Close()
			},
			[]string{"no container runtime has answered", "start it"},
		},
		"another server": {
			func(l *net.UnixListener) {
				server := grpc.NewServer()
				go func() { _ = server.Serve(l) }()
				t.Cleanup(server.Stop)
			},
			[]string{"no container runtime for Kubernetes", "disabled_plugins"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			c.serve(l)
			client, err := cri.Dial("unix://" + path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			err = awaitReady(t.Context(), client, path, time.Second)
			for _, want := range append(c.want, path) {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want it to say %q", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "rpc error") {
				t.Errorf("error %v tells of gRPC", err)
			}
		})
	}
}
