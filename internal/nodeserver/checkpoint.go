// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinnace-dev/pinnace/internal/access"
)

// serveCheckpoint writes a running container's state into a file, where the runtime can, and answers with its path, as the
// kubelet does.
func (s *Server) serveCheckpoint(w http.ResponseWriter, r *http.Request) {
	path, err := s.checkpoint(r, time.Now())
	if err != nil {
		access.WriteError(w, err)
		return
	}
	access.WriteJSON(w, http.StatusOK, map[string][]string{"items": {path}})
}

func (s *Server) checkpoint(r *http.Request, now time.Time) (string, error) {
	if s.CheckpointDir == "" {
		return "", notImplemented("this agent makes no checkpoints")
	}
	var timeout time.Duration
	if text := r.URL.Query().Get("timeout"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", apierrors.NewBadRequest(fmt.Sprintf("the parameter timeout is %q: give a number of seconds", text))
		}
		timeout = time.Duration(n) * time.Second
	}
	pod, err := s.pod(r)
	if err != nil {
		return "", err
	}
	name := r.PathValue("container")
	id, err := s.running(r.Context(), pod, name)
	if err != nil {
		return "", err
	}
	// What a process had in its memory is its owner's alone.
	if err := os.MkdirAll(s.CheckpointDir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder of checkpoints: %w", err)
	}
	path := filepath.Join(s.CheckpointDir, fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", pod.Name, pod.Namespace, name, now.UTC().Format("2006-01-02T15-04-05Z")))
	err = s.Runtime.CheckpointContainer(r.Context(), id, path, timeout)
	if status.Code(err) == codes.Unimplemented {
		return "", notImplemented("the container runtime can't make checkpoints: " + status.Convert(err).Message())
	}
	if err != nil {
		return "", fmt.Errorf("making a checkpoint of %s: %w", name, err)
	}
	return path, nil
}

func notImplemented(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotImplemented, Reason: metav1.StatusReasonMethodNotAllowed, Message: message,
	}}
}
