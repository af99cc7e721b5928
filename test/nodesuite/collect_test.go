// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// Image garbage collection: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images

const (
	pauseImage = "pinnace.dev/pause:1"
	// idleImage is nobody's, waitingImage that of a pod that doesn't run yet.
	idleImage, waitingImage = "registry.test/prog:2", "registry.test/prog:user"
)

// disturbImages has an agent that takes the disk for too full: the image that nobody uses goes, those that are used or pinned stay, and what
// went is pulled again when a pod wants it.
func disturbImages(t *testing.T, w *world) error {
	g := w.group(t)
	err := w.collectImages(t, g)
	return errors.Join(err, g.end())
}

func (w *world) collectImages(t *testing.T, g *podGroup) error {
	ctx := t.Context()
	for _, name := range []string{idleImage, waitingImage} {
		if _, err := w.node.CRI.PullImage(ctx, &runtimeapi.ImageSpec{Image: name}, nil, nil); err != nil {
			return fmt.Errorf("pulling %s: %w", name, err)
		}
	}
	if _, err := g.startReady(sleeper); err != nil {
		return err
	}
	waiting, err := g.start(`{pod: {initContainers: [{name: one, args: [sleep]}], containers: [{image: "` + waitingImage + `", args: [sleep]}]}}`)
	if err != nil {
		return err
	}
	if err := waiting.until(ctx, "state.one == 'running'", patience); err != nil {
		return err
	}
	began := time.Now()
	// A disk is always at least 1 % full.
	full := func(o *setup.AgentOptions) { o.Keep.ImageGCHigh, o.Keep.ImageGCLow, o.Keep.ImageMinimumAge = 1, 1, 0 }
	err = w.withOptions(ctx, full, func(ctx context.Context) error {
		// The event comes when all has gone that may go.
		return errors.Join(w.tellsFullDisk(ctx, began), w.images(ctx, map[string]bool{idleImage: false, testImage: true, waitingImage: true, pauseImage: true}))
	})
	if err != nil {
		return err
	}
	_, err = g.startReady(`{pod: {containers: [{image: "` + idleImage + `", args: [sleep]}]}}`)
	return err
}

// images compares which are there.
func (w *world) images(ctx context.Context, want map[string]bool) error {
	var failures []error
	for name, there := range want {
		image, err := w.node.CRI.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name})
		if err == nil && (image != nil) != there {
			err = fmt.Errorf("the image %s is there: %v, wanted: %v", name, image != nil, there)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// tellsFullDisk waits for the event of an image collection that couldn't free enough.
func (w *world) tellsFullDisk(ctx context.Context, since time.Time) error {
	return poll(ctx, patience, func(ctx context.Context) error {
		var list eventsv1.EventList
		if err := w.client.List(ctx, &list); err != nil {
			return err
		}
		for i := range list.Items {
			if e := &list.Items[i]; e.Reason == "FreeDiskSpaceFailed" && e.Regarding.Name == nodeName && e.EventTime.After(since) {
				return nil
			}
		}
		return errors.New("no event says that the disk stays too full")
	})
}
