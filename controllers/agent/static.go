// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// Annotations of static pods and of their mirrors, upstream's.
const (
	annotationConfigHash   = "kubernetes.io/config.hash"
	annotationConfigSource = "kubernetes.io/config.source"
	// MirrorAnnotation marks a pod on the API server as the mirror of a static one. Its value is the static pod's hash.
	MirrorAnnotation = corev1.MirrorPodAnnotationKey
)

// isMirror tells whether a pod only shows what an agent runs from a file.
func isMirror(pod *pcorev1.Pod) bool {
	if pod == nil {
		return false
	}
	_, ok := pod.Annotations[MirrorAnnotation]
	return ok
}

// parseStaticPod makes the pod of a manifest, in YAML or JSON. Its name ends in the node's; its UID follows from the content, so that a
// changed file is another pod, and a restart of the agent finds what runs. An error is a mistake in the file, in a sentence for its
// author.
func parseStaticPod(data []byte, file, node string) (*pcorev1.Pod, error) {
	pod := &pcorev1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		return nil, fmt.Errorf("%s is no manifest of a pod: %w", file, err)
	}
	switch {
	case pod.Kind != "Pod" || pod.APIVersion != "v1" && pod.APIVersion != pcorev1.GroupVersion.String():
		return nil, fmt.Errorf("%s is of kind %s %s: a static pod is a Pod of v1 or %s", file, pod.APIVersion, pod.Kind, pcorev1.GroupVersion)
	case pod.Name == "":
		return nil, fmt.Errorf("%s gives its pod no name: set metadata.name", file)
	case len(pod.Spec.Containers) == 0:
		return nil, fmt.Errorf("%s gives its pod no containers: set spec.containers", file)
	case len(pod.Spec.EphemeralContainers) > 0:
		return nil, fmt.Errorf("%s has ephemeral containers, which static pods can't have", file)
	}
	if err := refersToNothing(pod); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	sum := sha256.Sum256([]byte(node + "\x00" + file + "\x00" + string(data)))
	pod.UID = types.UID(hex.EncodeToString(sum[:16]))
	pod.Name += "-" + strings.ToLower(node)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	if wrong := validation.IsDNS1123Subdomain(pod.Name); len(wrong) > 0 {
		return nil, fmt.Errorf("%s: the pod's name %q is none: %s", file, pod.Name, wrong[0])
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	delete(pod.Annotations, MirrorAnnotation)
	pod.Annotations[annotationConfigHash], pod.Annotations[annotationConfigSource] = string(pod.UID), "file"
	pod.Generation, pod.ResourceVersion, pod.Finalizers, pod.OwnerReferences = 1, "", nil, nil
	pod.Spec.NodeName = node
	// Whatever befalls the node, nobody can evict what a file says.
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Status = pcorev1.PodStatus{}
	return pod, nil
}

// refersToNothing refuses what the agent would have to read from the API server, and its mirror may not name; upstream's rule.
func refersToNothing(pod *pcorev1.Pod) error {
	spec := &pod.Spec.PodSpec
	for _, need := range revision.Needs(&pcorev1.PodTemplateSpec{Spec: pod.Spec}) {
		return fmt.Errorf("a static pod can't refer to the %s %s: only files and values of its own", need.Kind, need.Name)
	}
	if (spec.ServiceAccountName != "" && spec.ServiceAccountName != "default") || len(spec.ImagePullSecrets) > 0 || len(spec.ResourceClaims) > 0 {
		return errors.New("a static pod can't have serviceAccountName, imagePullSecrets or resourceClaims")
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.CSI != nil {
			return fmt.Errorf("a static pod can't have volume %s: no claims and no drivers", v.Name)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken != nil || source.ClusterTrustBundle != nil || source.PodCertificate != nil {
				return fmt.Errorf("a static pod can't have volume %s: only downwardAPI may be projected", v.Name)
			}
		}
	}
	return nil
}

// makeMirror is the pod that shows a static one on the API server. It belongs to the node, and goes with it.
func makeMirror(static *pcorev1.Pod, node *pcorev1.Node) *pcorev1.Pod {
	mirror := static.DeepCopy()
	mirror.UID, mirror.Generation, mirror.Status = "", 0, pcorev1.PodStatus{}
	mirror.Annotations[MirrorAnnotation] = static.Annotations[annotationConfigHash]
	controller := true
	mirror.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: pcorev1.GroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID, Controller: &controller,
	}}
	return mirror
}

// mirrored is what an earlier agent has told of a static pod, or nil. That it had ended isn't taken over: the file says that it runs, and
// after the end of its node it does again. What it ended by itself with is in the runtime.
func mirrored(mirror, static *pcorev1.Pod) *pcorev1.PodStatus {
	if mirror == nil || !mirrors(mirror, static) || podstate.IsTerminal(mirror.Status.Phase) {
		return nil
	}
	return &mirror.Status
}

// mirrors tells whether a pod on the API server is the mirror of this very static pod.
func mirrors(mirror, static *pcorev1.Pod) bool {
	return mirror.Annotations[MirrorAnnotation] == static.Annotations[annotationConfigHash] && mirror.DeletionTimestamp == nil
}
