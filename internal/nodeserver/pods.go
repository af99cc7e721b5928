// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// Labels of sandboxes and containers, the kubelet's names: by them a pod's are found.
const (
	labelPodUID        = "io.kubernetes.pod.uid"
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelContainerName = "io.kubernetes.container.name"
)

// pod finds the pod that a request names. A uid in the path must be its own: a name may have gone to another pod.
func (s *Server) pod(r *http.Request) (*pcorev1.Pod, error) {
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}
	pod := &pcorev1.Pod{}
	err := s.Pods.Get(r.Context(), key, pod)
	uid := r.PathValue("uid")
	if apierrors.IsNotFound(err) || (err == nil && (pod.Spec.NodeName != s.NodeName || (uid != "" && uid != string(pod.UID)))) {
		return nil, apierrors.NewNotFound(pcorev1.GroupVersion.WithResource("pods").GroupResource(), key.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pod %s: %w", key, err)
	}
	return ofMirror(pod), nil
}

// ofMirror gives the mirror of a static pod the UID that its containers have. Anybody may write that annotation, so containers are always
// looked for by the pod's namespace and name too.
func ofMirror(pod *pcorev1.Pod) *pcorev1.Pod {
	if uid := pod.Annotations[corev1.MirrorPodAnnotationKey]; uid != "" {
		pod.UID = types.UID(uid)
	}
	return pod
}

// labelsOf are those that all sandboxes and containers of a pod have.
func labelsOf(pod *pcorev1.Pod) map[string]string {
	return map[string]string{labelPodUID: string(pod.UID), labelPodNamespace: pod.Namespace, labelPodName: pod.Name}
}

// containers are what the runtime holds of one of the pod's containers, the newest first.
func (s *Server) containers(ctx context.Context, pod *pcorev1.Pod, name string) ([]*runtimeapi.Container, error) {
	selector := labelsOf(pod)
	selector[labelContainerName] = name
	list, err := s.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("asking the container runtime for the container %s: %w", name, err)
	}
	slices.SortFunc(list, func(a, b *runtimeapi.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
	return list, nil
}

// running finds the container of a name that runs.
func (s *Server) running(ctx context.Context, pod *pcorev1.Pod, name string) (id string, err error) {
	list, err := s.containers(ctx, pod, name)
	if err != nil {
		return "", err
	}
	for _, c := range list {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			return c.Id, nil
		}
	}
	return "", notFound("container not found (%q)", name)
}

// logged finds the container whose log is asked for: upstream's rules (pkg/kubelet/kubelet_pods.go,
// validateContainerLogStatus) on what the runtime holds, which is newer than the pod's status.
func logged(pod *pcorev1.Pod, name string, previous bool, newestFirst []*runtimeapi.Container) (id string, err error) {
	started := slices.DeleteFunc(slices.Clone(newestFirst), func(c *runtimeapi.Container) bool {
		return c.State == runtimeapi.ContainerState_CONTAINER_CREATED || c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN
	})
	status := containerStatus(pod, name)
	if previous {
		if last := status.LastTerminationState.Terminated; last != nil {
			for _, c := range started {
				if strings.HasSuffix(last.ContainerID, "://"+c.Id) {
					return c.Id, nil
				}
			}
		}
		// The status may lag behind a restart.
		for i, c := range started {
			if i > 0 && c.State == runtimeapi.ContainerState_CONTAINER_EXITED {
				return c.Id, nil
			}
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", name, pod.Name))
	}
	if len(started) > 0 {
		return started[0].Id, nil
	}
	reason := "no logs yet"
	switch waiting := status.State.Waiting; {
	case status.State.Terminated != nil:
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is terminated, and its log is gone", name, pod.Name))
	case waiting == nil:
	case waiting.Reason == "ErrImagePull":
		reason = "image can't be pulled"
	case waiting.Reason == "ImagePullBackOff":
		reason = "trying and failing to pull image"
	case waiting.Reason != "":
		reason = waiting.Reason
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, pod.Name, reason))
}

func containerStatus(pod *pcorev1.Pod, name string) corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == name {
				return list[i]
			}
		}
	}
	return corev1.ContainerStatus{}
}

func hasContainer(pod *pcorev1.Pod, name string) bool {
	named := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.Containers, named) || slices.ContainsFunc(pod.Spec.InitContainers, named) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}

func (s *Server) servePods(w http.ResponseWriter, r *http.Request) {
	var list pcorev1.PodList
	if err := s.Pods.List(r.Context(), &list); err != nil {
		access.WriteError(w, fmt.Errorf("listing the node's pods: %w", err))
		return
	}
	list.SetGroupVersionKind(pcorev1.GroupVersion.WithKind("PodList"))
	list.Items = slices.DeleteFunc(list.Items, func(p pcorev1.Pod) bool { return p.Spec.NodeName != s.NodeName })
	slices.SortFunc(list.Items, func(a, b pcorev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	access.WriteJSON(w, http.StatusOK, &list)
}
