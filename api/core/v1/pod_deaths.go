// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DeathLinesAnnotation on a pod says how many of the last lines of a container's log are kept with each of its deaths: 0 keeps
// none, for logs that may hold secrets. Without it the node decides. What is no number counts as 0.
const DeathLinesAnnotation = "pinnace.dev/death-lines"

// ContainerDeath is how one run of a container ended, kept after the runtime has forgotten it.
type ContainerDeath struct {
	// container is the container's name.
	Container string `json:"container"`
	// restartCount tells which run it was; the first is 0.
	RestartCount int32 `json:"restartCount"`
	// exitCode of the container's first process.
	ExitCode int32 `json:"exitCode"`
	// signal is the one that the exit code stands for (128 and the signal's number), such as SIGKILL.
	// +optional
	Signal string `json:"signal,omitempty"`
	// reason is the runtime's: Error, OOMKilled, Completed, StartError.
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says why where it is known: the memory limit that was used up, the probe that failed, or the container's own
	// termination message. At most 512 bytes.
	// +optional
	Message string `json:"message,omitempty"`
	// startedAt is absent when it never started.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// finishedAt is when it ended.
	// +optional
	FinishedAt metav1.Time `json:"finishedAt,omitempty"`
	// containerID is the runtime's, as type://id.
	// +optional
	ContainerID string `json:"containerID,omitempty"`
	// lastLines are the last lines of its log, both streams, at most 10 lines and 1 KiB.
	// +optional
	LastLines string `json:"lastLines,omitempty"`
}
