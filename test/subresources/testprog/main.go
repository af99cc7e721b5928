// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Testprog is what runs in the containers of the tests. Its first argument says what it does:
//
//	count N       prints "line 1" to "line N", then sleeps
//	echo          prints what it reads, line by line, and "bye" at the end of its input
//	exit N        ends with N after "so long" on stderr
//	serve PORT    answers HTTP with "served"
//	size          prints the size of its terminal when it changes, until one is 33 rows high
//	slow N        prints N lines, one each 100 ms, and ends
//	burn          uses a core, until it is told to end
//
// Under the name tar it also packs and unpacks what kubectl cp asks for.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 2 && (os.Args[1] == "cf" || os.Args[1] == "-xmf") {
		if err := archive(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "tar:", err)
			os.Exit(1)
		}
		return
	}
	args := make([]string, 2)
	copy(args, os.Args[1:])
	number, _ := strconv.Atoi(args[1])
	switch args[0] {
	case "count":
		for i := 1; i <= number; i++ {
			fmt.Printf("line %d\n", i)
		}
		sleep()
	case "slow":
		for i := 1; i <= number; i++ {
			fmt.Printf("line %d\n", i)
			time.Sleep(100 * time.Millisecond) // slow, so that a follower is seen to follow
		}
	case "echo":
		echo(os.Stdin)
	case "exit":
		fmt.Fprintln(os.Stderr, "so long")
		os.Exit(number)
	case "serve":
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served "+r.URL.RequestURI()) })
		go func() { fmt.Println(http.ListenAndServe("127.0.0.1:"+args[1], nil)) }()
		fmt.Println("serving")
		echo(os.Stdin)
		sleep()
	case "size":
		size()
	case "burn":
		var turns atomic.Uint64
		go func() {
			for {
				turns.Add(1)
			}
		}()
		sleep()
	default:
		fmt.Fprintln(os.Stderr, "unknown command", args[0])
		os.Exit(2)
	}
}

func sleep() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}

func echo(in io.Reader) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		fmt.Print(strings.ToUpper(line))
		if err != nil {
			fmt.Println("bye")
			return
		}
	}
}

func size() {
	for {
		s, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
		if err == nil {
			fmt.Printf("%dx%d\n", s.Row, s.Col)
		}
		if err != nil || s.Row == 33 {
			return
		}
		time.Sleep(50 * time.Millisecond) // A container has nobody who tells it of a new size but the signal, which a test of this must not trust.
	}
}
