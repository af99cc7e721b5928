// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// puller pulls images, each at most once at a time, and not too many at once.
type puller struct {
	images runtime.Images
	slots  chan struct{}
	group  singleflight.Group
	wait   sync.WaitGroup
}

func newPuller(images runtime.Images, parallel int) *puller {
	return &puller{images: images, slots: make(chan struct{}, parallel)}
}

// pull pulls in the background and says what came out.
func (p *puller) pull(ctx context.Context, image string, auths []*runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig, done func(ref string, err error)) {
	p.wait.Go(func() {
		key := image
		for _, auth := range auths {
			key += "\x00" + auth.Username + "\x00" + auth.Auth
		}
		ref, err, _ := p.group.Do(key, func() (any, error) {
			p.slots <- struct{}{}
			defer func() { <-p.slots }()
			return p.try(ctx, image, auths, sandbox)
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
