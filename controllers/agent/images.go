// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// puller pulls images, each at most once at a time, and not too many at once.
type puller struct {
	images runtime.Images
	// refuses is Node.Refuses.
	refuses func(ctx context.Context, image, username, password string) (bool, error)
	slots   chan struct{}
	group   singleflight.Group
	wait    sync.WaitGroup

	mu sync.Mutex
	// begun says by pull since when it has a place.
	begun map[string]time.Time
}

func newPuller(images runtime.Images, parallel int) *puller {
	return &puller{images: images, slots: make(chan struct{}, parallel), begun: map[string]time.Time{}}
}

// pullKey tells pulls apart: with other credentials it is another one, so that nobody gets an image by somebody else's.
func pullKey(image string, auths []*runtimeapi.AuthConfig) string {
	key := image
	for _, auth := range auths {
		key += "\x00" + auth.Username + "\x00" + auth.Auth
	}
	return key
}

// state says since when a pull has a place, zero while it waits for one, and how many have.
func (p *puller) state(key string) (since time.Time, pulls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun[key], len(p.begun)
}

func (p *puller) take(key string) {
	p.slots <- struct{}{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun[key] = time.Now() // The clock by which files are written.
}

func (p *puller) give(key string) {
	p.mu.Lock()
	delete(p.begun, key)
	p.mu.Unlock()
	<-p.slots
}

// pull pulls in the background and says what came out.
func (p *puller) pull(ctx context.Context, image string, auths []*runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig, done func(ref string, err error)) {
	p.wait.Go(func() {
		key := pullKey(image, auths)
		ref, err, _ := p.group.Do(key, func() (any, error) {
			p.take(key)
			defer p.give(key)
			ref, err := p.try(ctx, image, auths, sandbox)
			if err != nil {
				err = p.explain(ctx, image, auths, err)
			}
			return ref, err
		})
		text, _ := ref.(string)
		done(text, err)
	})
}

func (p *puller) try(ctx context.Context, image string, auths []*runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	spec := &runtimeapi.ImageSpec{Image: image}
	if len(auths) == 0 {
		return p.images.PullImage(ctx, spec, nil, sandbox)
	}
	var first error
	for _, auth := range auths {
		ref, err := p.images.PullImage(ctx, spec, auth, sandbox)
		if err == nil {
			return ref, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// refusedError is why a pull failed, with what to do about it.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// explain says so when an image's registry wants a login that it didn't get, which the runtime's own words often hide.
func (p *puller) explain(ctx context.Context, image string, auths []*runtimeapi.AuthConfig, err error) error {
	if p.refuses == nil || ctx.Err() != nil {
		return err
	}
	login := &runtimeapi.AuthConfig{}
	advice := "the registry wants a login: name a pull secret for it in the imagePullSecrets of the pod or of its service account"
	if len(auths) > 0 {
		login, advice = auths[0], "the registry refuses the login of the pull secret: put the right user name and password into it"
	}
	if refuses, asked := p.refuses(ctx, image, login.Username, login.Password); asked != nil || !refuses {
		return err // What the runtime says is all that is known.
	}
	return &refusedError{text: message(err) + ": " + advice}
}

// pullPolicy is the container's, or upstream's default: Always for the tag latest and no tag, else IfNotPresent.
func pullPolicy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	if tag := imageTag(c.Image); tag == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// imageTag is the image's tag: latest when it has none, empty when it has a digest.
func imageTag(image string) string {
	for i := len(image) - 1; i >= 0; i-- {
		switch image[i] {
		case '@':
			return ""
		case ':':
			for j := 0; j < i; j++ {
				if image[j] == '@' {
					return ""
				}
			}
			return image[i+1:]
		case '/':
			return "latest"
		}
	}
	return "latest"
}
