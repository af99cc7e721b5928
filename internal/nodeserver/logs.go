// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/internal/access"
	"github.com/pinnace-dev/pinnace/internal/nodeserver/crilog"
)

// logQuery is what a request wants of a log: v1 PodLogOptions as parameters.
type logQuery struct {
	follow, previous, timestamps bool
	tail, limit                  int64
	since                        time.Time
	stream                       string
}

// parseLogQuery checks the parameters as upstream does (ValidatePodLogOptions).
func parseLogQuery(query url.Values, now time.Time) (logQuery, error) {
	q := logQuery{tail: -1, limit: -1, stream: corev1.LogStreamAll}
	for name, to := range map[string]*bool{"follow": &q.follow, "previous": &q.previous, "timestamps": &q.timestamps} {
		if text := query.Get(name); text != "" {
			value, err := strconv.ParseBool(text)
			if err != nil {
				return q, fmt.Errorf("the parameter %s is %q: give true or false", name, text)
			}
			*to = value
		}
	}
	tail := "tailLines"
	if query.Get(tail) == "" && query.Get("tail") != "all" {
		tail = "tail" // what the kubelet took before
	}
	numbers := map[string]*int64{tail: &q.tail, "limitBytes": &q.limit}
	var seconds int64
	numbers["sinceSeconds"] = &seconds
	for name, to := range numbers {
		text := query.Get(name)
		if text == "" || (name == "tail" && text == "all") {
			continue
		}
		value, err := strconv.ParseInt(text, 10, 64)
		if least := map[string]int64{"limitBytes": 1, "sinceSeconds": 1}[name]; err != nil || value < least {
			return q, fmt.Errorf("the parameter %s is %q: give a whole number of at least %d", name, text, least)
		}
		*to = value
	}
	sinceTime := query.Get("sinceTime")
	switch {
	case sinceTime != "" && seconds > 0:
		return q, errors.New("at most one of sinceTime and sinceSeconds may be given")
	case sinceTime != "":
		at, err := time.Parse(time.RFC3339, sinceTime)
		if err != nil {
			return q, fmt.Errorf("the parameter sinceTime is %q: give a time such as 2026-01-02T15:04:05Z", sinceTime)
		}
		q.since = at
	case seconds > 0:
		q.since = now.Add(-time.Duration(seconds) * time.Second)
	}
	if text := query.Get("stream"); text != "" {
		q.stream = text
	}
	switch {
	case q.stream != corev1.LogStreamAll && q.stream != corev1.LogStreamStdout && q.stream != corev1.LogStreamStderr:
		return q, fmt.Errorf("the parameter stream is %q: give All, Stdout or Stderr", q.stream)
	case q.stream != corev1.LogStreamAll && q.tail >= 0:
		return q, errors.New("tailLines counts the lines of both streams: leave stream at All, or tailLines out")
	}
	return q, nil
}

func (s *Server) serveLogs(w http.ResponseWriter, r *http.Request) {
	q, err := parseLogQuery(r.URL.Query(), time.Now())
	if err != nil {
		access.WriteError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	id, path, err := s.log(r, q)
	if err != nil {
		access.WriteError(w, err)
		return
	}
	out := &flusher{to: w, control: http.NewResponseController(w)}
	options := crilog.Options{
		Follow: q.follow, Tail: q.tail, Limit: q.limit, Since: q.since, Timestamps: q.timestamps, Stdout: out, Stderr: out,
		Running: func(ctx context.Context) (bool, error) { return s.isRunning(ctx, id) },
	}
	switch q.stream {
	case corev1.LogStreamStdout:
		options.Stderr = nil
	case corev1.LogStreamStderr:
		options.Stdout = nil
	}
	w.Header().Set("Content-Type", "text/plain")
	if q.follow {
		// Whoever follows a silent container wants to know that it has begun.
		_ = http.NewResponseController(w).Flush()
	}
	if err := crilog.Read(r.Context(), path, options); err != nil && r.Context().Err() == nil {
		if !out.begun && !q.follow {
			access.WriteError(w, err)
			return
		}
		logf.FromContext(r.Context()).V(1).Info("Sending a log broke off", "reason", err.Error())
	}
}

// log finds the log that a request is about.
func (s *Server) log(r *http.Request, q logQuery) (id, path string, err error) {
	pod, err := s.pod(r)
	if err != nil {
		return "", "", err
	}
	name := r.PathValue("container")
	if !hasContainer(pod, name) {
		return "", "", notFound("container %q not found in pod %q", name, pod.Name)
	}
	list, err := s.containers(r.Context(), pod, name)
	if err != nil {
		return "", "", err
	}
	if id, err = logged(pod, name, q.previous, list); err != nil {
		return "", "", err
	}
	container, err := s.Runtime.ContainerStatus(r.Context(), id)
	if err != nil {
		return "", "", fmt.Errorf("asking the container runtime for the log of %s: %w", name, err)
	}
	if path = container.GetLogPath(); path == "" {
		return "", "", notFound("container %q in pod %q has no log", name, pod.Name)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", "", notFound("the log of container %q in pod %q is gone", name, pod.Name)
	}
	return id, path, nil
}

func (s *Server) isRunning(ctx context.Context, id string) (bool, error) {
	list, err := s.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{Id: id})
	if status.Code(err) == codes.Unavailable {
		return true, nil // Containers run on while their runtime is restarted.
	}
	if err != nil {
		return false, err
	}
	return len(list) > 0 && list[0].State == runtimeapi.ContainerState_CONTAINER_RUNNING, nil
}

// flusher sends each piece at once.
type flusher struct {
	to      io.Writer
	control *http.ResponseController
	begun   bool
}

func (f *flusher) Write(p []byte) (int, error) {
	f.begun = true
	n, err := f.to.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
