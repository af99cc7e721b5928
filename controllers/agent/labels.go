// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"hash/fnv"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Labels and annotations of sandboxes and containers; the kubelet's names (pkg/kubelet/kuberuntime/labels.go), so that crictl
// and other tools show our pods as they show the kubelet's.
const (
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"

	annotationHash          = "io.kubernetes.container.hash"
	annotationRestartCount  = "io.kubernetes.container.restartCount"
	annotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop       = "io.kubernetes.container.preStopHandler"
	annotationGrace         = "io.kubernetes.pod.terminationGracePeriod"
	// annotationKind says what a container is: init, sidecar, main or ephemeral.
	annotationKind = "pinnace.dev/container-kind"
	// annotationEpoch counts how often all containers of the pod had been restarted together when the container was made; absent: never.
	annotationEpoch = "pinnace.dev/epoch"
)

const (
	// Finalizer keeps a bound pod's object until the agent of its node has stopped everything. Placement adds it in
	// the write that binds; see docs/adr/0030.
	Finalizer = "pinnace.dev/node"
	// GraceAnnotation on a pod that is being deleted overrides spec.terminationGracePeriodSeconds; the API server sets
	// metadata.deletionGracePeriodSeconds of a custom resource to 0 whatever was asked for (docs/adr/0030).
	GraceAnnotation = "pinnace.dev/deletion-grace-period-seconds"
)

// The kinds of containers.
const (
	kindInit      = "init"
	kindSidecar   = "sidecar"
	kindMain      = "main"
	kindEphemeral = "ephemeral"
)

func podLabels(pod *pcorev1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	maps.Copy(labels, pod.Labels)
	labels[labelPodName], labels[labelPodNamespace], labels[labelPodUID] = pod.Name, pod.Namespace, string(pod.UID)
	return labels
}

func containerLabels(pod *pcorev1.Pod, name string) map[string]string {
	return map[string]string{
		labelPodName: pod.Name, labelPodNamespace: pod.Namespace, labelPodUID: string(pod.UID), labelContainerName: name,
	}
}

func containerAnnotations(pod *pcorev1.Pod, step startStep) map[string]string {
	c := step.container
	notes := map[string]string{
		annotationHash:          containerHash(c),
		annotationRestartCount:  strconv.Itoa(int(step.restartCount)),
		annotationMessagePath:   messagePath(c),
		annotationMessagePolicy: string(c.TerminationMessagePolicy),
		annotationKind:          step.kind,
		annotationGrace:         strconv.FormatInt(graceSeconds(pod), 10),
	}
	if step.epoch > 0 {
		notes[annotationEpoch] = strconv.Itoa(int(step.epoch))
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		// What is needed to stop the container must be known when the pod's object is gone.
		if raw, err := json.Marshal(c.Lifecycle.PreStop); err == nil {
			notes[annotationPreStop] = string(raw)
		}
	}
	return notes
}

// containerHash changes with what makes a running container out of date: its image, as upstream's pickFieldsToHash.
func containerHash(c *corev1.Container) string {
	h := fnv.New32a()
	h.Write([]byte(c.Name + "\x00" + c.Image))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

func messagePath(c *corev1.Container) string {
	if c.TerminationMessagePath == "" {
		return corev1.TerminationMessagePathDefault
	}
	return c.TerminationMessagePath
}

// graceSeconds is how long the pod's containers get to end.
func graceSeconds(pod *pcorev1.Pod) int64 {
	if pod.DeletionTimestamp != nil {
		if text, ok := pod.Annotations[GraceAnnotation]; ok {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
				return n
			}
		}
		// The API server writes 0 for custom resources; only a positive value was meant by somebody.
		if n := pod.DeletionGracePeriodSeconds; n != nil && *n > 0 {
			return *n
		}
	}
	if n := pod.Spec.TerminationGracePeriodSeconds; n != nil {
		return *n
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func podKey(labels map[string]string) types.NamespacedName {
	return types.NamespacedName{Namespace: labels[labelPodNamespace], Name: labels[labelPodName]}
}
