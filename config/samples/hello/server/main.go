// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command server is the sample's image: it answers HTTP with a greeting and the name of the pod that answered.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	pod, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("reading the pod's name: %w", err)
	}
	greeting := cmp.Or(os.Getenv("GREETING"), "Hello")
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s from %s. %s\n", greeting, pod, motd())
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })

	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-stop
		_ = server.Close() // its error is of no use: the process ends
	}()
	log.Printf("Serving on %s as %s", server.Addr, pod)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// motd reads the mounted ConfigMap at each request, so that a change shows without a restart.
func motd() string {
	text, err := os.ReadFile("/etc/hello/motd")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
