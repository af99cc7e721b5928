// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Testprog is what runs in the containers of the suites. Its first argument says what it does:
//
//	sleep              until SIGTERM, then exit 0
//	exit N [MESSAGE]   at once with N, leaving a termination message
//	serve PORT         HTTP: / answers, /env/NAME a variable, /file/PATH a file, /fail makes /healthz fail, /exit/N ends
//	grpc PORT [NAME]   gRPC's health service: SERVING for the service of that name
//	write FILE TEXT    appends a line
//	eat MIB            takes that much memory
//	threads N          has so many threads
//	fill FILE MIB      writes that much
//	cat FILE           prints it
//	do LINE...         does one line after the other, each a command with its arguments between spaces
//
// and what stands in facts.go and signals.go.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() { run(os.Args[1:]) }

// run does one command and returns when it is done; most that end a container don't return.
func run(given []string) {
	args := make([]string, 3)
	copy(args, given)
	if tell, ok := facts[args[0]]; ok {
		tell(given[1:])
		return
	}
	switch args[0] {
	case "do":
		for _, line := range given[1:] {
			run(strings.Fields(line))
		}
		return
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			code = 99
		}
		fmt.Println("exiting with", code)
		if args[2] != "" {
			check(os.WriteFile("/dev/termination-log", []byte(args[2]), 0o600))
		}
		os.Exit(code)
	case "serve":
		go serve(args[1])
	case "grpc":
		go serveGRPC(args[1], args[2])
	case "write":
		f, err := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		check(err)
		_, err = fmt.Fprintln(f, args[2])
		check(err)
		check(f.Close())
		return
	case "fill":
		mib, err := strconv.Atoi(args[2])
		check(err)
		check(os.WriteFile(args[1], make([]byte, mib<<20), 0o644))
		return
	case "cat":
		data, err := os.ReadFile(args[1])
		check(err)
		fmt.Print(string(data))
		return
	case "eat":
		mib, err := strconv.Atoi(args[1])
		check(err)
		block := make([]byte, mib<<20)
		for i := range block {
			block[i] = 1
		}
		fmt.Println(len(block))
	case "threads":
		n, err := strconv.Atoi(args[1])
		check(err)
		var ends [2]int
		check(syscall.Pipe(ends[:]))
		for range n {
			// A read from what Go doesn't poll holds a thread.
			go func() { _, _ = syscall.Read(ends[0], make([]byte, 1)) }()
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	os.Exit(0)
}

func serve(port string) {
	var failing atomic.Bool
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		name, err := os.Hostname()
		check(err)
		fmt.Fprintln(w, name)
	})
	http.HandleFunc("/env/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, os.Getenv(strings.TrimPrefix(r.URL.Path, "/env/")))
	})
	http.HandleFunc("/file/", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile("/" + strings.TrimPrefix(r.URL.Path, "/file/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	})
	http.HandleFunc("/id", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%d:%d", os.Getuid(), os.Getgid()) })
	http.HandleFunc("/fail", func(http.ResponseWriter, *http.Request) { failing.Store(true) })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			http.Error(w, "failing", http.StatusInternalServerError)
		}
	})
	// /asked notes what a probe sends, /status/N answers with a code, /moved redirects.
	http.HandleFunc("/asked", func(_ http.ResponseWriter, r *http.Request) {
		fmt.Printf("asked %s %s host=%s agent=%s x=%s\n", r.Method, r.URL, r.Host, r.UserAgent(), r.Header.Get("X-Probe"))
	})
	http.HandleFunc("/status/", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/status/"))
		check(err)
		w.WriteHeader(code)
	})
	http.HandleFunc("/exists/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat("/" + strings.TrimPrefix(r.URL.Path, "/exists/")); err != nil {
			http.Error(w, "not there", http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	http.HandleFunc("/exit/", func(_ http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/exit/"))
		check(err)
		os.Exit(code)
	})
	server := &http.Server{Addr: ":" + port, ReadHeaderTimeout: 5 * time.Second}
	if os.Getenv("SERVE_TLS") != "" {
		server.TLSConfig = selfSigned()
		check(server.ListenAndServeTLS("", ""))
	}
	check(server.ListenAndServe())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(98)
	}
}
