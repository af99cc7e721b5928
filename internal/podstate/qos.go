// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOSClass is the pod's quality of service class after upstream's pkg/apis/core/v1/helper/qos: Guaranteed when each
// container has equal, non-zero limits and requests for cpu and memory, BestEffort when none has any, else Burstable.
// Ephemeral containers do not count. Resources on the pod's level, where they are set, decide alone.
func QOSClass(spec *corev1.PodSpec) corev1.PodQOSClass {
	if spec.Resources != nil && (len(spec.Resources.Requests) > 0 || len(spec.Resources.Limits) > 0) {
		return classOf([]*corev1.ResourceRequirements{spec.Resources})
	}
	all := make([]*corev1.ResourceRequirements, 0, len(spec.Containers)+len(spec.InitContainers))
	for i := range spec.Containers {
		all = append(all, &spec.Containers[i].Resources)
	}
	for i := range spec.InitContainers {
		all = append(all, &spec.InitContainers[i].Resources)
	}
	return classOf(all)
}

func classOf(all []*corev1.ResourceRequirements) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	limitsEverywhere := true
	for _, r := range all {
		addCompute(requests, r.Requests)
		if addCompute(limits, r.Limits) != 2 {
			limitsEverywhere = false
		}
		// The API server defaults a request from its limit; a pod from a loose schema may lack it.
		for name, limit := range r.Limits {
			if _, set := r.Requests[name]; !set {
				addCompute(requests, corev1.ResourceList{name: limit})
			}
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	if !limitsEverywhere || len(requests) != len(limits) {
		return corev1.PodQOSBurstable
	}
	for name, request := range requests {
		if limit, ok := limits[name]; !ok || limit.Cmp(request) != 0 {
			return corev1.PodQOSBurstable
		}
	}
	return corev1.PodQOSGuaranteed
}

// addCompute adds the non-zero cpu and memory of from to sum, and returns how many of the two there were.
func addCompute(sum, from corev1.ResourceList) int {
	found := 0
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q, ok := from[name]
		if !ok || q.Cmp(resource.Quantity{}) <= 0 {
			continue
		}
		found++
		total := sum[name]
		total.Add(q)
		sum[name] = total
	}
	return found
}
