// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// ignore notes the signals that could end it, and goes on.
func ignore([]string) {
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
	fmt.Println("ignoring")
	for s := range got {
		fmt.Println("ignored", s)
	}
}

// signals ends with the number of the first signal as its exit code.
func signals([]string) {
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
	fmt.Println("listening")
	s := <-got
	fmt.Println("got", s)
	number, ok := s.(syscall.Signal)
	if !ok {
		os.Exit(97)
	}
	os.Exit(int(number))
}

// onTerm waits for SIGTERM, does one more line, and ends well: "onterm write /out/log main-stopped".
func onTerm(args []string) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGTERM)
	fmt.Println("listening")
	<-got
	if len(args) > 0 {
		run(args)
	}
	os.Exit(0)
}

// pause is what a case asks for whose container is to take a while.
func pause(args []string) {
	d, err := time.ParseDuration(args[0])
	check(err)
	time.Sleep(d)
}

// await returns once the file is there.
func await(args []string) {
	for {
		if _, err := os.Stat(args[0]); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// once ends with 1, or with the code that is given, unless the file is there, which it makes.
func once(args []string) {
	if _, err := os.Stat(args[0]); err == nil {
		return
	}
	check(os.WriteFile(args[0], nil, 0o644))
	code := 1
	if len(args) > 1 {
		var err error
		code, err = strconv.Atoi(args[1])
		check(err)
	}
	os.Exit(code)
}

// count prints numbered lines of 200 bytes, one after the other with that much time between them, until it is killed.
func count(args []string) {
	d, err := time.ParseDuration(args[0])
	check(err)
	for i := 1; ; i++ {
		fmt.Printf("%06d %0192d\n", i, 0)
		time.Sleep(d)
	}
}
