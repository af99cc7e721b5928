// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImagePolicy says when unused images go; the kubelet's rules and defaults.
type ImagePolicy struct {
	// High is the percentage of the disk in use from which on images are removed, until it is at most Low; 85 and 80 when both are
	// 0. High 100 switches it off.
	High, Low int
	// MinimumAge is how long an image stays at least from when it was first seen; 0: 2 min, negative: not at all.
	MinimumAge time.Duration
}

func (p ImagePolicy) withDefaults() ImagePolicy {
	if p.High == 0 && p.Low == 0 {
		p.High, p.Low = 85, 80
	}
	if p.MinimumAge == 0 {
		p.MinimumAge = 2 * time.Minute
	}
	return p
}

// disk is the file system of the images.
type disk struct{ capacity, free int64 }

// usedPercent rounds up, as the kubelet's does.
func (d disk) usedPercent() int {
	return 100 - int(min(d.free, d.capacity)*100/d.capacity)
}

// excess is how many bytes are to be freed: 0 below the high threshold.
func (p ImagePolicy) excess(d disk) int64 {
	if d.capacity <= 0 || p.High >= 100 || d.usedPercent() < p.High {
		return 0
	}
	return d.capacity*int64(100-p.Low)/100 - d.free
}

// use is what is remembered of an image.
type use struct {
	firstSeen, lastUsed time.Time
	// inUse is as of the last look. The time of a use can't tell it: the plan is made a little later than the look.
	inUse bool
}

// uses brings up to date what is remembered of images: in use are those of containers, dead or alive, and those that a pod of this
// node names.
func uses(before map[string]use, images []*runtimeapi.Image, inUse func(*runtimeapi.Image) bool, now time.Time) map[string]use {
	next := make(map[string]use, len(images))
	for _, image := range images {
		u, known := before[image.Id]
		if !known {
			u.firstSeen = now
		}
		if u.inUse = inUse(image); u.inUse {
			u.lastUsed = now
		}
		next[image.Id] = u
	}
	return next
}

// planImages chooses images to remove so that at least bytes are freed: the least recently used first, never one in use, pinned or
// too new. short is what can't be freed this way.
func planImages(images []*runtimeapi.Image, known map[string]use, bytes int64, policy ImagePolicy, now time.Time) (remove []*runtimeapi.Image, short int64) {
	candidates := slices.Clone(images)
	slices.SortStableFunc(candidates, func(a, b *runtimeapi.Image) int {
		ua, ub := known[a.Id], known[b.Id]
		return cmp.Or(ua.lastUsed.Compare(ub.lastUsed), ua.firstSeen.Compare(ub.firstSeen), cmp.Compare(a.Id, b.Id))
	})
	for _, image := range candidates {
		if bytes <= 0 {
			break
		}
		u := known[image.Id]
		if u.inUse || now.Sub(u.firstSeen) < policy.MinimumAge || isPinned(image) {
			continue
		}
		remove = append(remove, image)
		bytes -= int64(image.Size)
	}
	return remove, max(bytes, 0)
}

// isPinned: containerd before 1.7 pins no pause image, so that one is known by its name.
func isPinned(image *runtimeapi.Image) bool {
	return image.Pinned || slices.ContainsFunc(image.RepoTags, func(tag string) bool {
		name := tag[strings.LastIndexByte(tag, '/')+1:]
		name, _, _ = strings.Cut(name, ":")
		return name == "pause"
	})
}

// Bounds of status.images; the kubelet's.
const (
	imagesMost     = 50
	imageNamesMost = 5
)

// nodeImages is status.images: the biggest first, each with a few of its names.
func nodeImages(images []*runtimeapi.Image) []corev1.ContainerImage {
	sorted := slices.Clone(images)
	slices.SortStableFunc(sorted, func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Id, b.Id))
	})
	var out []corev1.ContainerImage
	for _, image := range sorted[:min(len(sorted), imagesMost)] {
		names := append(slices.Sorted(slices.Values(image.RepoDigests)), slices.Sorted(slices.Values(image.RepoTags))...)
		out = append(out, corev1.ContainerImage{Names: names[:min(len(names), imageNamesMost)], SizeBytes: int64(image.Size)})
	}
	return out
}
