// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type imageFault struct {
	absent                             bool
	pullError, createError, startError string
	updateError                        string
}

// Fault is what goes wrong with an image; the zero value: nothing.
type Fault struct {
	// Absent says that the image has to be pulled first.
	Absent bool
	// PullError, CreateError and StartError are what the three calls answer.
	PullError, CreateError, StartError string
	// UpdateError is what an update of the resources of its containers answers.
	UpdateError string
}

// SetFault says what goes wrong with an image from now on.
func (r *Runtime) SetFault(image string, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[image] = imageFault{absent: f.Absent, pullError: f.PullError, createError: f.CreateError, startError: f.StartError, updateError: f.UpdateError}
}

// ImageStatus finds any image that isn't made absent.
func (r *Runtime) ImageStatus(_ context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.images[image.GetImage()].absent {
		return nil, nil
	}
	return &runtimeapi.Image{Id: imageID(image.GetImage()), RepoTags: []string{image.GetImage()}, Size: 1 << 20}, nil
}

// PullImage makes an absent image present, unless it is set to fail.
func (r *Runtime) PullImage(_ context.Context, image *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts["PullImage"]++
	fault := r.images[image.GetImage()]
	if fault.pullError != "" {
		return "", status.Error(codes.NotFound, fault.pullError)
	}
	fault.absent = false
	r.images[image.GetImage()] = fault
	return imageID(image.GetImage()), nil
}

// ListImages lists nothing: a simulated node has every image.
func (r *Runtime) ListImages(context.Context) ([]*runtimeapi.Image, error) { return nil, nil }

// RemoveImage makes an image absent.
func (r *Runtime) RemoveImage(_ context.Context, image *runtimeapi.ImageSpec) error {
	r.SetFault(image.GetImage(), Fault{Absent: true})
	return nil
}

// ImageFsInfo reports an empty file system.
func (r *Runtime) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, nil
}

func imageID(image string) string {
	sum := sha256.Sum256([]byte(image))
	return "sha256:" + hex.EncodeToString(sum[:])
}
