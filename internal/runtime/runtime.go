// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime makes and watches sandboxes and containers. All methods are safe for concurrent use, honour the
// context's deadline, and return the runtime's own gRPC status errors, so that codes such as NotFound can be told apart.
type Runtime interface {
	// Version names the runtime and its version.
	Version(ctx context.Context) (*runtimeapi.VersionResponse, error)
	// Status reports the conditions RuntimeReady and NetworkReady.
	Status(ctx context.Context) (*runtimeapi.RuntimeStatus, error)

	// RunPodSandbox makes and starts a sandbox with its network. It is not idempotent: look up by pod UID first.
	RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, runtimeHandler string) (id string, err error)
	// StopPodSandbox ends what runs in the sandbox and gives its network back. Idempotent.
	StopPodSandbox(ctx context.Context, id string) error
	// RemovePodSandbox removes the sandbox and its containers. Idempotent.
	RemovePodSandbox(ctx context.Context, id string) error
	// PodSandboxStatus returns one sandbox with its addresses.
	PodSandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error)
	// ListPodSandbox returns the sandboxes that match; nil matches all.
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)

	CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer sends the stop signal, waits for at most the grace period (whole seconds), then kills. Idempotent.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	// RemoveContainer removes a container that has stopped, and its log. Idempotent.
	RemoveContainer(ctx context.Context, id string) error
	// UpdateContainerResources changes the limits of a container that runs; what is zero is left as it is.
	UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error
	ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	// ExecSync runs a command in a container and waits for it, for at most the timeout (0: without bound).
	ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error)

	// Events sends container events until the context ends or the stream breaks (the error says how).
	// A runtime without events answers with gRPC code Unimplemented: relist instead.
	Events(ctx context.Context, to chan<- *runtimeapi.ContainerEventResponse) error
}

// Images pulls and finds images. The rules of Runtime's methods hold here too.
type Images interface {
	// ImageStatus returns nil and no error when the image is not there.
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error)
	// PullImage pulls and returns the image's reference by which containers can name it.
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (ref string, err error)
	ListImages(ctx context.Context) ([]*runtimeapi.Image, error)
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
	// ImageFsInfo reports the space that images take.
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// Service is a whole runtime.
type Service interface {
	Runtime
	Images
}
