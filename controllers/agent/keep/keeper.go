// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/internal/volume"
)

// Runtime is what a Keeper asks of the container runtime.
type Runtime interface {
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	// PodSandboxInfo is all that the runtime says of a sandbox, in words of its own.
	PodSandboxInfo(ctx context.Context, id string) (string, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ReopenContainerLog(ctx context.Context, id string) error
	ListImages(ctx context.Context) ([]*runtimeapi.Image, error)
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// Pods are the pods that belong on a node.
type Pods struct {
	// UIDs of all of them, and of those that are still being ended.
	UIDs map[types.UID]bool
	// Images are the names of the images that those name which haven't ended.
	Images []string
}

// Options of a Keeper.
type Options struct {
	// Runtime of the node. Required.
	Runtime Runtime
	// Pods says which pods belong on the node. An error leaves everything as it is. Required.
	Pods func(ctx context.Context) (Pods, error)
	// Volumes and LogDir are where pods leave something; nil and empty: nowhere.
	Volumes *volume.Manager
	LogDir  string
	// Cgroups are the cgroups of the pods; nil: none.
	Cgroups Cgroups
	// Machine is where the runtime has its things; nil: it has none here.
	Machine Machine
	// Addresses are those of the sandboxes; nil: somebody else's business. They need Machine.
	Addresses Addresses
	// TidyEvery is how often is looked for what is left; a minute when 0. LogsEvery is how often logs are looked at; 10 s when 0.
	TidyEvery, LogsEvery time.Duration
	// Images says when images go, Logs when logs are rotated.
	Images ImagePolicy
	Logs   LogPolicy
	// Tell hears of what an operator should know, as an event's reason and note. Nil: nobody.
	Tell func(reason, note string)
	// Disk returns capacity and free bytes of a path's file system; the kernel's word when nil.
	Disk func(path string) (capacity, free int64, err error)
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Cgroups lists and removes the cgroups of pods.
type Cgroups interface {
	// Pods lists the pods that have one.
	Pods() ([]string, error)
	// Remove kills what runs in a pod's cgroup and removes it. What is still dying is an error, and gone the next time.
	Remove(uid string) error
}

// How often is looked at what.
const (
	logsEvery   = 10 * time.Second
	imagesEvery = 30 * time.Second
	tidyEvery   = time.Minute
)

// Keeper keeps one node in order. Its methods are safe for concurrent use.
type Keeper struct {
	options Options

	// work lets one tidying at a time run, whoever asked for it.
	work  sync.Mutex
	known map[string]use

	mu     sync.Mutex
	images []corev1.ContainerImage
	toldAt time.Time
}

// New makes a Keeper that does nothing until it is started.
func New(o Options) *Keeper {
	o.Images, o.Logs = o.Images.withDefaults(), o.Logs.withDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Disk == nil {
		o.Disk = statfs
	}
	if o.TidyEvery <= 0 {
		o.TidyEvery = tidyEvery
	}
	if o.LogsEvery <= 0 {
		o.LogsEvery = logsEvery
	}
	return &Keeper{options: o, known: map[string]use{}}
}

// Start keeps the node in order until the context ends. What fails is tried again at the next look.
func (k *Keeper) Start(ctx context.Context) error {
	log := logf.FromContext(ctx).WithName("keep")
	look := func(what string, do func(context.Context) error) {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			log.Info("Keeping the node in order failed, trying again", "at", what, "reason", err.Error())
		}
	}
	logs, images, tidy := time.NewTicker(k.options.LogsEvery), time.NewTicker(imagesEvery), time.NewTicker(k.options.TidyEvery)
	defer logs.Stop()
	defer images.Stop()
	defer tidy.Stop()
	look("images", k.listImages)
	look("leftovers", k.Tidy)
	look("what is forgotten", k.EndForgotten)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-logs.C:
			look("logs", k.RotateLogs)
		case <-images.C:
			look("images", k.listImages)
		case <-tidy.C:
			look("leftovers", k.Tidy)
			look("what is forgotten", k.EndForgotten)
			look("images", k.FreeImages)
		}
	}
}

// Images are the node's images for its status, as of the last look.
func (k *Keeper) Images() []corev1.ContainerImage {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.images
}

func (k *Keeper) listImages(ctx context.Context) error {
	list, err := k.options.Runtime.ListImages(ctx)
	if err != nil {
		return fmt.Errorf("listing the images: %w", err)
	}
	images := nodeImages(list)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.images = images
	return nil
}

// tell says something at most every ten minutes.
func (k *Keeper) tell(reason, note string) {
	now := k.options.Now()
	k.mu.Lock()
	again := now.Sub(k.toldAt) >= 10*time.Minute
	if again {
		k.toldAt = now
	}
	k.mu.Unlock()
	if again && k.options.Tell != nil {
		k.options.Tell(reason, note)
	}
}

func statfs(path string) (capacity, free int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, fmt.Errorf("reading the free space of the file system of %s: %w", path, err)
	}
	if s.Blocks == 0 {
		return 0, 0, errors.New("the file system of " + path + " says that it has no space at all")
	}
	return int64(s.Blocks) * s.Bsize, int64(s.Bavail) * s.Bsize, nil
}
