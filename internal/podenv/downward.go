// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Downward answers the downward API for one pod.
type Downward struct {
	Pod *pcorev1.Pod
	// PodIPs and HostIPs are the addresses of the pod and its node, the first one first.
	PodIPs, HostIPs []string
	// Allocatable of the node stands in for a limit that isn't set.
	Allocatable corev1.ResourceList
}

// Namespace is the pod's.
func (d *Downward) Namespace() string { return d.Pod.Namespace }

// Field returns the value of a fieldPath, such as metadata.labels['app'] or status.podIP.
func (d *Downward) Field(path string) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return d.Pod.Labels[key], nil
		case "metadata.annotations":
			return d.Pod.Annotations[key], nil
		}
		return "", fmt.Errorf("unsupported fieldPath %q: a key is possible for metadata.labels and metadata.annotations", path)
	}
	switch path {
	case "metadata.name":
		return d.Pod.Name, nil
	case "metadata.namespace":
		return d.Pod.Namespace, nil
	case "metadata.uid":
		return string(d.Pod.UID), nil
	case "metadata.labels":
		return formatMap(d.Pod.Labels), nil
	case "metadata.annotations":
		return formatMap(d.Pod.Annotations), nil
	case "spec.nodeName":
		return d.Pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		if d.Pod.Spec.ServiceAccountName == "" {
			return "default", nil
		}
		return d.Pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return first(d.PodIPs), nil
	case "status.podIPs":
		return strings.Join(d.PodIPs, ","), nil
	case "status.hostIP":
		return first(d.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(d.HostIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath %q", path)
}

// Resource returns a resourceFieldRef's value in units of its divisor, rounded up, for its container or, where it names
// none, the container of the given name.
func (d *Downward) Resource(ref *corev1.ResourceFieldSelector, container string) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	var c *corev1.Container
	for _, list := range [][]corev1.Container{d.Pod.Spec.Containers, d.Pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == container {
				c = &list[i]
			}
		}
	}
	if c == nil {
		return "", fmt.Errorf("container %s of resourceFieldRef %s not found in the pod", container, ref.Resource)
	}
	side, name, _ := strings.Cut(ref.Resource, ".")
	var list corev1.ResourceList
	switch side {
	case "limits":
		list = c.Resources.Limits
	case "requests":
		list = c.Resources.Requests
	default:
		return "", fmt.Errorf("unsupported container resource %q: use limits or requests with cpu, memory or ephemeral-storage", ref.Resource)
	}
	quantity, set := list[corev1.ResourceName(name)]
	if !set && side == "limits" {
		quantity = d.Allocatable[corev1.ResourceName(name)]
	}
	return divided(quantity, ref.Divisor, name == string(corev1.ResourceCPU)), nil
}

func divided(q, divisor resource.Quantity, milli bool) string {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if milli {
		return strconv.FormatInt(int64(math.Ceil(float64(q.MilliValue())/float64(divisor.MilliValue()))), 10)
	}
	return strconv.FormatInt(int64(math.Ceil(float64(q.Value())/float64(divisor.Value()))), 10)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (name, key string, ok bool) {
	open := strings.Index(path, "['")
	if open < 0 || !strings.HasSuffix(path, "']") {
		return "", "", false
	}
	return path[:open], path[open+2 : len(path)-2], true
}

// formatMap writes labels or annotations as the downward API's files hold them: key="value", sorted by key.
func formatMap(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	lines := make([]string, 0, len(m))
	for _, key := range keys {
		lines = append(lines, fmt.Sprintf("%s=%q", key, m[key]))
	}
	return strings.Join(lines, "\n")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
