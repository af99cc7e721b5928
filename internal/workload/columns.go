// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"strings"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Columns are kubectl's columns of a kind that owns pods, where a JSONPath can't compute them.
func Columns(ready, want int32, template *pcorev1.PodTemplateSpec, selector string) pcorev1.Columns {
	names := make([]string, 0, len(template.Spec.Containers))
	images := make([]string, 0, len(template.Spec.Containers))
	for i := range template.Spec.Containers {
		names = append(names, template.Spec.Containers[i].Name)
		images = append(images, template.Spec.Containers[i].Image)
	}
	return pcorev1.Columns{
		"ready":      fmt.Sprintf("%d/%d", ready, want),
		"containers": strings.Join(names, ","),
		"images":     strings.Join(images, ","),
		"selector":   selector,
	}
}
