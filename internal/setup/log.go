// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// LogOptions say what a process logs, on stderr.
type LogOptions struct {
	// Verbosity is 0 for what an operator must know, 1 for decisions, 2 for flow.
	Verbosity int
	// JSON logs a JSON object a line, for collectors.
	JSON bool
}

// install makes the process' logger: logr over zap, taken over by controller-runtime and client-go too.
func (o LogOptions) install() (logr.Logger, error) {
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(zapcore.Level(-o.Verbosity))
	config.Sampling = nil
	config.DisableCaller = true
	config.DisableStacktrace = true
	config.EncoderConfig.EncodeTime = zapcore.RFC3339TimeEncoder
	if !o.JSON {
		config.Encoding = "console"
	}
	zapLogger, err := config.Build()
	if err != nil {
		return logr.Logger{}, fmt.Errorf("making the logger: %w", err)
	}
	logger := zapr.NewLogger(zapLogger)
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	return logger, nil
}
