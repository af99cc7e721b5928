// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command answer is the program in the test's container: it says hello, and ends on SIGTERM with status 7. With the
// argument "say" it prints what follows and ends.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "say" {
		fmt.Println(strings.Join(os.Args[2:], " "))
		return
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	fmt.Println("hello from the container")
	<-end
	os.Exit(7)
}
