// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command image makes a container image from one static program, with no registry and no build daemon:
//
//	go run ./hack/image -binary bin/hello -tag pinnace.dev/hello:v1 -port 8080/tcp -o bin/images/hello.tar
//
// `pinnace image load` takes the file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/pinnace-dev/pinnace/internal/image"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// words collects a flag that may be given several times.
type words []string

func (w *words) String() string { return strings.Join(*w, " ") }

func (w *words) Set(value string) error {
	*w = append(*w, value)
	return nil
}

func run() error {
	var entrypoint, ports words
	binary := flag.String("binary", "", "the statically linked program")
	tag := flag.String("tag", "", "the image's name, such as pinnace.dev/hello:v1")
	output := flag.String("o", "", "the tar file to write")
	user := flag.String("user", "", "the user it runs as (default 65532:65532)")
	flag.Var(&entrypoint, "entrypoint", "one word of the command line; repeat it (default: the program alone)")
	flag.Var(&ports, "port", "a port it listens on, such as 8080/tcp; may be repeated")
	flag.Parse()
	if *binary == "" || *tag == "" || *output == "" {
		return errors.New("-binary, -tag and -o are needed; see -help")
	}
	return image.BuildSingleBinary(*binary, *tag, entrypoint, ports, *user, *output)
}
