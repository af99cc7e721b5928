// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// mirrorAnnotation marks the image of a static pod, which its file alone can change.
const mirrorAnnotation = corev1.MirrorPodAnnotationKey

// serveResize shows a pod, and changes what its containers ask for of CPU and memory. All else that is sent is passed over, as
// upstream does. The agent of the pod's node does the rest.
func (s *Server) serveResize(w http.ResponseWriter, r *http.Request) { s.servePod(w, r, s.resize) }

func (s *Server) resize(r *http.Request, pod *pcorev1.Pod) (*pcorev1.Pod, error) {
	wanted, err := readPod(r, pod)
	if err != nil {
		return nil, err
	}
	changed := pod.DeepCopy()
	takeResources(&changed.Spec.PodSpec, &wanted.Spec.PodSpec)
	if faults := checkResize(pod, changed); len(faults) > 0 {
		return nil, apierrors.NewInvalid(pcorev1.GroupVersion.WithKind("Pod").GroupKind(), pod.Name, faults)
	}
	how := []client.PatchOption{}
	if r.URL.Query().Get("dryRun") == "All" {
		how = append(how, client.DryRunAll)
	}
	if err := s.Client.Patch(r.Context(), changed, client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{}), how...); err != nil {
		return nil, err
	}
	return changed, nil
}

// readPod reads the pod that a PUT sends, or that a PATCH makes of the present one.
func readPod(r *http.Request, pod *pcorev1.Pod) (*pcorev1.Pod, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, bodyMost))
	if err != nil {
		return nil, apierrors.NewBadRequest("reading the request: " + err.Error())
	}
	if r.Method == http.MethodPatch {
		if body, err = patched(pod, r.Header.Get("Content-Type"), body); err != nil {
			return nil, err
		}
	}
	wanted := &pcorev1.Pod{}
	if err := json.Unmarshal(body, wanted); err != nil {
		return nil, apierrors.NewBadRequest("the request is no pod in JSON: " + err.Error())
	}
	if version := wanted.ResourceVersion; version != "" && version != pod.ResourceVersion {
		return nil, apierrors.NewConflict(podResource, pod.Name, fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	return wanted, nil
}

// takeResources is pure: it copies what a resize may change, container by container of the same name.
func takeResources(into, from *corev1.PodSpec) {
	into.Resources = from.Resources
	for _, lists := range [][2][]corev1.Container{{into.Containers, from.Containers}, {into.InitContainers, from.InitContainers}} {
		byName := map[string]*corev1.Container{}
		for i := range lists[1] {
			byName[lists[1][i].Name] = &lists[1][i]
		}
		for i := range lists[0] {
			if c := byName[lists[0][i].Name]; c != nil {
				lists[0][i].Resources, lists[0][i].ResizePolicy = c.Resources, c.ResizePolicy
			}
		}
	}
}

// checkResize is pure: upstream's rules of a resize (ValidatePodResize in pkg/apis/core/validation), but for what the rules of
// pods say anyway.
func checkResize(old, changed *pcorev1.Pod) field.ErrorList {
	if _, static := old.Annotations[mirrorAnnotation]; static {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	var faults field.ErrorList
	spec := field.NewPath("spec")
	before := old.Status.QOSClass
	if before == "" {
		before = podstate.QOSClass(&old.Spec.PodSpec)
	}
	if after := podstate.QOSClass(&changed.Spec.PodSpec); after != before {
		faults = append(faults, field.Invalid(spec, after, "Pod QOS Class may not change as a result of resizing"))
	}
	if r := old.Spec.Resources; r != nil || changed.Spec.Resources != nil {
		faults = append(faults, checkResources(orEmpty(r), orEmpty(changed.Spec.Resources), spec.Child("resources"))...)
	}
	for name, lists := range map[string][2][]corev1.Container{
		"containers": {old.Spec.Containers, changed.Spec.Containers}, "initContainers": {old.Spec.InitContainers, changed.Spec.InitContainers},
	} {
		for i := range lists[0] {
			at := spec.Child(name).Index(i)
			faults = append(faults, checkResources(&lists[0][i].Resources, &lists[1][i].Resources, at.Child("resources"))...)
			if !samePolicies(lists[0][i].ResizePolicy, lists[1][i].ResizePolicy) {
				faults = append(faults, field.Forbidden(at.Child("resizePolicy"), "only cpu and memory resources are mutable"))
			}
		}
	}
	return faults
}

func orEmpty(r *corev1.ResourceRequirements) *corev1.ResourceRequirements {
	if r == nil {
		return &corev1.ResourceRequirements{}
	}
	return r
}

func samePolicies(a, b []corev1.ContainerResizePolicy) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// checkResources is pure: nothing may be taken away, and nothing but CPU and memory may change.
func checkResources(old, changed *corev1.ResourceRequirements, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for name, lists := range map[string][2]corev1.ResourceList{
		"requests": {old.Requests, changed.Requests}, "limits": {old.Limits, changed.Limits},
	} {
		for resource, was := range lists[0] {
			is, ok := lists[1][resource]
			switch {
			case !ok:
				faults = append(faults, field.Forbidden(at.Child(name), fmt.Sprintf("resource %s cannot be removed", name)))
			case is.Cmp(was) != 0 && !mayResize(resource):
				faults = append(faults, field.Forbidden(at.Child(name).Key(string(resource)), "only cpu and memory resources are mutable"))
			}
		}
		for resource := range lists[1] {
			if _, ok := lists[0][resource]; !ok && !mayResize(resource) {
				faults = append(faults, field.Forbidden(at.Child(name).Key(string(resource)), "only cpu and memory resources are mutable"))
			}
		}
	}
	if len(old.Claims) != len(changed.Claims) {
		faults = append(faults, field.Forbidden(at.Child("claims"), "only cpu and memory resources are mutable"))
	}
	return faults
}

func mayResize(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory
}
