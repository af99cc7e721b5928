// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// imageVolumeKey stands for the image of a volume where failures and pulls are kept by the name of a container, which has no blank.
func imageVolumeKey(volume string) string { return "volume " + volume }

// imageVolumes sees to the images of the pod's volumes, which are pulled by the rules of containers' images. ok false: one isn't there
// yet, or can't be had, which is remembered for the status.
func (r *Reconciler) imageVolumes(ctx context.Context, rec *record, pod *pcorev1.Pod, sandbox *runtimeapi.PodSandboxConfig) (ok bool) {
	ok = true
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image == nil || rec.imageVolumes[v.Name] != nil {
			continue
		}
		c := &corev1.Container{Name: imageVolumeKey(v.Name), Image: v.Image.Reference, ImagePullPolicy: v.Image.PullPolicy}
		_, ref, found := r.image(ctx, rec, pod, c, sandbox)
		if !found {
			ok = false
			continue
		}
		set(&rec.imageVolumes, v.Name, &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: v.Image.Reference})
	}
	return ok
}

// blocked says whether something that failed or is under way holds a container up, its own start or an image of the pod's volumes, and
// notes why.
func (p *plan) blocked(s situation, name string) bool {
	holds := func(key string) bool {
		failure, ok := s.mem.failed[key]
		if !ok || !failure.retryAt.IsZero() && !failure.retryAt.After(s.now) {
			return false
		}
		p.waiting[name] = failure
		p.wakeAt(failure.retryAt)
		return true
	}
	if holds(name) {
		return true
	}
	for i := range s.pod.Spec.Volumes {
		if v := &s.pod.Spec.Volumes[i]; v.Image != nil && holds(imageVolumeKey(v.Name)) {
			return true
		}
	}
	return false
}
