// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"context"
	"errors"
	"fmt"
	"math"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/internal/image"
)

// FreeImages removes unused images when the disk is too full, and remembers which are in use now.
func (k *Keeper) FreeImages(ctx context.Context) error {
	k.work.Lock()
	defer k.work.Unlock()
	images, err := k.lookAtImages(ctx)
	if err != nil {
		return err
	}
	info, err := k.options.Runtime.ImageFsInfo(ctx)
	if err != nil {
		return fmt.Errorf("asking where the images are: %w", err)
	}
	for _, fs := range info.GetImageFilesystems() {
		path := fs.GetFsId().GetMountpoint()
		if path == "" {
			continue
		}
		var d disk
		if d.capacity, d.free, err = k.options.Disk(path); err != nil {
			return err
		}
		excess := k.options.Images.excess(d)
		if excess <= 0 {
			continue
		}
		freed, short, err := k.remove(ctx, images, excess)
		if short > 0 {
			k.tell("FreeDiskSpaceFailed", fmt.Sprintf("The disk of the images is %d%% full; removing unused images freed %d MB, and %d MB more are wanted: "+
				"look at logs, volumes and other data on it.", d.usedPercent(), freed/1e6, short/1e6))
		}
		return err // There is one file system of images, whatever else the list may say.
	}
	return nil
}

// RemoveUnusedImages removes all images that may go, for a node whose disk is under pressure. It returns how many bytes they had.
func (k *Keeper) RemoveUnusedImages(ctx context.Context) (freed int64, err error) {
	k.work.Lock()
	defer k.work.Unlock()
	images, err := k.lookAtImages(ctx)
	if err != nil {
		return 0, err
	}
	freed, _, err = k.remove(ctx, images, math.MaxInt64)
	return freed, err
}

// lookAtImages lists the images and remembers which are in use. The lock is held.
func (k *Keeper) lookAtImages(ctx context.Context) ([]*runtimeapi.Image, error) {
	// Images first: one that comes after the containers were listed isn't judged by them.
	images, err := k.options.Runtime.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the images: %w", err)
	}
	containers, err := k.options.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing the containers: %w", err)
	}
	pods, err := k.options.Pods(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, c := range containers {
		named[c.GetImageId()], named[c.GetImageRef()], named[c.GetImage().GetImage()] = true, true, true
	}
	for _, name := range pods.Images {
		if ref, err := image.ParseReference(name); err == nil {
			named[ref.String()] = true
		}
	}
	delete(named, "")
	k.known = uses(k.known, images, func(i *runtimeapi.Image) bool {
		used := named[i.Id]
		for _, list := range [][]string{i.RepoTags, i.RepoDigests} {
			for _, name := range list {
				used = used || named[name]
			}
		}
		return used
	}, k.options.Now())
	return images, nil
}

// remove removes images of that many bytes, if there are as many that may go. The lock is held.
func (k *Keeper) remove(ctx context.Context, images []*runtimeapi.Image, bytes int64) (freed, short int64, err error) {
	chosen, short := planImages(images, k.known, bytes, k.options.Images, k.options.Now())
	var failures []error
	for _, i := range chosen {
		if err := k.options.Runtime.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: i.Id}); err != nil {
			failures = append(failures, fmt.Errorf("removing the image %s: %w", nameOf(i), err))
			short += int64(i.Size)
			continue
		}
		freed += int64(i.Size)
		logf.FromContext(ctx).Info("Removed an unused image", "image", nameOf(i), "bytes", i.Size)
	}
	return freed, short, errors.Join(failures...)
}

func nameOf(i *runtimeapi.Image) string {
	if len(i.RepoTags) > 0 {
		return i.RepoTags[0]
	}
	return i.Id
}
