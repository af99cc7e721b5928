// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// notFound is the API's error 404 with a message of its own.
func notFound(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: fmt.Sprintf(format, args...),
	}}
}

// quiet keeps what net/http says of strangers' broken connections to those who want to see the flow.
func quiet(logger logr.Logger) *log.Logger {
	return log.New(lines{logger}, "", 0)
}

type lines struct{ logger logr.Logger }

func (l lines) Write(p []byte) (int, error) {
	l.logger.V(2).Info("The HTTP server says", "text", strings.TrimSpace(string(p)))
	return len(p), nil
}
