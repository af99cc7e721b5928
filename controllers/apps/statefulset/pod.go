// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// ordinalOf returns the ordinal that a pod's name gives it in a set; -1 when it is no member. Only the one way to write an
// ordinal counts: upstream takes web-01 for a second web-1 and then fails to rename it.
func ordinalOf(set, pod string) int {
	rest, ok := strings.CutPrefix(pod, set+"-")
	if !ok {
		return -1
	}
	n, err := strconv.ParseInt(rest, 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != rest {
		return -1
	}
	return int(n)
}

func podName(set string, ordinal int) string { return set + "-" + strconv.Itoa(ordinal) }

// revisionOf is the name of the revision that a pod was made from.
func revisionOf(pod *pcorev1.Pod) string { return pod.Labels[revision.PodRevisionLabel] }

// makePod makes the pod of an ordinal from a revision.
func makePod(set *pappsv1.StatefulSet, rev release, ordinal int) *pcorev1.Pod {
	template := rev.Template
	pod := &pcorev1.Pod{Spec: *template.Spec.DeepCopy()}
	pod.Name, pod.Namespace, pod.GenerateName = podName(set.Name, ordinal), set.Namespace, set.Name+"-"
	pod.Labels = identity(template.Labels, pod.Name, ordinal)
	pod.Labels[revision.PodRevisionLabel] = rev.name
	pod.Annotations = maps.Clone(template.Annotations)
	pod.Finalizers = slices.Clone(template.Finalizers)
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, kind)}
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	pod.Spec.Volumes = withClaims(pod.Spec.Volumes, set, rev, ordinal)
	return pod
}

// identity returns the labels with those that tell who the pod is.
func identity(labels map[string]string, name string, ordinal int) map[string]string {
	out := make(map[string]string, len(labels)+3)
	maps.Copy(out, labels)
	out[appsv1.StatefulSetPodNameLabel] = name
	out[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
	return out
}

// withClaims returns the volumes with those of the claims in front; a claim takes the place of a volume of the same name.
func withClaims(volumes []corev1.Volume, set *pappsv1.StatefulSet, rev release, ordinal int) []corev1.Volume {
	var out []corev1.Volume
	mine := map[string]bool{}
	for _, t := range rev.claimTemplates(set) {
		mine[t.Name] = true
		out = append(out, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(t.Name, set.Name, ordinal)},
		}})
	}
	for i := range volumes {
		if !mine[volumes[i].Name] {
			out = append(out, volumes[i])
		}
	}
	return out
}

// repaired returns the pod with the labels that tell who it is, when it lacks them (somebody took them away, or it was adopted); else nil.
func repaired(pod *pcorev1.Pod, ordinal int) *pcorev1.Pod {
	if pod.Labels[appsv1.StatefulSetPodNameLabel] == pod.Name {
		return nil
	}
	out := pod.DeepCopy()
	out.Labels = identity(pod.Labels, pod.Name, ordinal)
	return out
}

// isReady says whether the pod runs and is ready.
func isReady(pod *pcorev1.Pod) bool {
	return pod.Status.Phase == corev1.PodRunning && workload.IsReady(pod)
}

// isUp says whether the pod is available and wasn't deleted.
func (s *scope) isUp(pod *pcorev1.Pod) bool {
	return pod != nil && pod.DeletionTimestamp == nil && s.isAvailable(pod)
}

func (s *scope) isAvailable(pod *pcorev1.Pod) bool {
	available, _ := workload.Availability(pod, time.Duration(s.settings.minReadySeconds)*time.Second, s.now)
	return available
}

// wasNeverReady says whether the pod hasn't been ready since it started. A node's agent stamps the first status of a pod with the start
// time, and the condition with the time of its last change: a later change means that the pod was ready once.
func wasNeverReady(pod *pcorev1.Pod) bool {
	since, ready := workload.ReadySince(pod)
	if ready {
		return false
	}
	return pod.Status.StartTime == nil || since.IsZero() || !since.After(pod.Status.StartTime.Time)
}
