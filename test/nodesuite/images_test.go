// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pinnace-dev/pinnace/internal/image"
)

// testImage runs the test's program as root.
const testImage = "registry.test/prog:1"

// variants of the test's image, by tag.
var variants = map[string]func(*v1.Config){
	"1":      func(*v1.Config) {},
	"latest": func(*v1.Config) {},
	"2":      func(*v1.Config) {},
	"user":   func(c *v1.Config) { c.User = "1234:2345" },
	"named":  func(c *v1.Config) { c.User = "somebody" },
	"config": func(c *v1.Config) {
		c.Entrypoint, c.Cmd = []string{"/testprog", "args"}, []string{"of", "image"}
		c.Env, c.WorkingDir, c.StopSignal = []string{"FROM_IMAGE=yes", "BOTH=image"}, "/work", "SIGUSR1"
	},
	"stop": func(c *v1.Config) { c.StopSignal = "SIGUSR1" },
	"none": func(c *v1.Config) { c.Entrypoint, c.Cmd = nil, nil },
}

func pushImages(ctx context.Context, w *world, program string) error {
	built, err := image.Binary{Path: program, User: "0:0"}.Build()
	if err != nil {
		return err
	}
	for tag, change := range variants {
		config, err := built.ConfigFile()
		if err != nil {
			return err
		}
		config = config.DeepCopy()
		// Each is an image of its own: the runtime names a container's image by any of its tags.
		config.Config.Labels = map[string]string{"variant": tag}
		change(&config.Config)
		variant, err := mutate.ConfigFile(built, config)
		if err != nil {
			return err
		}
		ref, err := image.ParseReference("registry.test/prog:" + tag)
		if err != nil {
			return err
		}
		if err := w.node.Images.Push(ctx, ref, variant); err != nil {
			return err
		}
	}
	return w.registry.push(ctx, built)
}

// registry asks for a password, and counts who asks for manifests.
type registry struct {
	host  string
	pulls atomic.Int64
}

const registryUser, registryPassword = "puller", "open sesame"

func serveRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, request *http.Request) {
		user, password, ok := request.BasicAuth()
		if !ok || user != registryUser || password != registryPassword {
			rw.Header().Set("WWW-Authenticate", `Basic realm="suite"`)
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		if strings.Contains(request.URL.Path, "/manifests/") && request.Method != http.MethodPut {
			r.pulls.Add(1)
		}
		inner.ServeHTTP(rw, request)
	}))
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

func (r *registry) push(ctx context.Context, built v1.Image) error {
	for _, tag := range []string{"private:1", "private:2", "private:3", "private:4"} {
		ref, err := name.ParseReference(r.host + "/" + tag)
		if err != nil {
			return err
		}
		auth := authn.FromConfig(authn.AuthConfig{Username: registryUser, Password: registryPassword})
		if err := remote.Write(ref, built, remote.WithContext(ctx), remote.WithAuth(auth)); err != nil {
			return fmt.Errorf("pushing to the registry with a password: %w", err)
		}
	}
	return nil
}
