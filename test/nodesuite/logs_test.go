// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/setup"
)

// Log rotation: https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation

const (
	// logFiles of one container at most.
	logFiles = 3
	// rotations that the disturbance waits for: old files are removed from the third one on.
	rotations = 4
)

// disturbLogs rotates the log of a container that writes on, while somebody reads on.
func disturbLogs(t *testing.T, w *world) error {
	limits := func(o *setup.AgentOptions) {
		o.Keep.LogMaxSize, o.Keep.LogMaxFiles, o.Keep.LogsEvery = "20000", logFiles, 2*time.Second
	}
	return w.withOptions(t.Context(), limits, func(context.Context) error {
		return w.around(t, `{pod: {containers: [{args: [count, 5ms]}]}}`, ready, func(ctx context.Context, r *caseRun) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			lines, err := w.followLog(ctx, t, r)
			if err != nil {
				return err
			}
			defer func() { _ = lines.Close() }()
			return errors.Join(awaitRotations(ctx, w.logDir(r, "main")), lines.readOn(ctx), r.holds(ctx, "c.main.restartCount == 0 && log('main', 0).size() > 0"))
		}, "")
	})
}

// logDir is the folder of a container's logs.
func (w *world) logDir(r *caseRun, container string) string {
	return filepath.Join(w.dataDir(), "log", r.pod.Namespace+"_"+r.pod.Name+"_"+string(r.pod.UID), container)
}

// awaitRotations watches the files of a log until it has been rotated often enough. There are never more than there may be.
func awaitRotations(ctx context.Context, dir string) error {
	seen := map[string]bool{}
	return poll(ctx, patience, func(context.Context) error {
		files, err := filepath.Glob(filepath.Join(dir, "0.log*"))
		if err != nil {
			return fatal{err}
		}
		now := map[string]bool{}
		for _, file := range files {
			// While one is compressed it is there twice.
			now[strings.TrimSuffix(strings.TrimSuffix(file, ".tmp"), ".gz")] = true
		}
		for name := range now {
			seen[name] = true
		}
		if len(now) > logFiles {
			return fatal{fmt.Errorf("there are more than %d logs: %v", logFiles, files)}
		}
		// The log itself is no rotated one.
		if done := len(seen) - 1; done < rotations {
			return fmt.Errorf("the log was rotated %d times: %v", done, files)
		}
		if !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, ".gz") }) {
			return fmt.Errorf("no rotated log is compressed: %v", files)
		}
		return nil
	})
}

// logLines are the lines that a follower of a log gets.
type logLines struct {
	*http.Response
	scanner *bufio.Scanner
}

// Close ends the following.
func (l *logLines) Close() error { return l.Body.Close() }

// readOn reads until a line that was written after now, of which none may lack and none come twice.
func (l *logLines) readOn(ctx context.Context) error {
	last, began := 0, time.Now()
	for l.scanner.Scan() {
		stamp, text, _ := strings.Cut(l.scanner.Text(), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return fmt.Errorf("reading the line %q: %w", l.scanner.Text(), err)
		}
		first, _, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(first)
		if err != nil {
			return fmt.Errorf("reading the line %q: %w", l.scanner.Text(), err)
		}
		if last != 0 && n != last+1 {
			return fmt.Errorf("line %d follows line %d", n, last)
		}
		if last = n; at.After(began) {
			return nil
		}
	}
	return fmt.Errorf("the log ends with line %d: %w", last, errors.Join(l.scanner.Err(), ctx.Err()))
}

// followLog has the agent's server send the log as it is written, from its next line on.
func (w *world) followLog(ctx context.Context, t *testing.T, r *caseRun) (*logLines, error) {
	t.Helper()
	token, err := w.readerToken(ctx, t)
	if err != nil {
		return nil, err
	}
	var n pcorev1.Node
	if err := w.client.Get(ctx, types.NamespacedName{Name: nodeName}, &n); err != nil {
		return nil, err
	}
	address := net.JoinHostPort(r.last.Status.HostIP, strconv.Itoa(int(n.Status.DaemonEndpoints.KubeletEndpoint.Port)))
	url := fmt.Sprintf("https://%s/containerLogs/%s/%s/main?follow=true&timestamps=true&tailLines=1", address, r.pod.Namespace, r.pod.Name)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	// Whose certificate it is doesn't matter here; test/subresources looks at that.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // See above.
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the agent for the log: %w", err)
	}
	lines := &logLines{Response: response, scanner: bufio.NewScanner(response.Body)}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("asking the agent for the log: %s", response.Status), lines.Close())
	}
	return lines, nil
}

// readerToken is a token of somebody who may do everything.
func (w *world) readerToken(ctx context.Context, t *testing.T) (string, error) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.env.Namespace(t), Name: "reader"}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "suite-" + account.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name}},
	}
	if err := errors.Join(w.client.Create(ctx, account), w.client.Create(ctx, binding)); err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = w.client.Delete(context.WithoutCancel(ctx), binding) }) // The API server goes soon after.
	request := &authenticationv1.TokenRequest{}
	if err := w.client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	return request.Status.Token, nil
}
