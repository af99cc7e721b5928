// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// HashLabel is the label that tells the pods of one revision of a Deployment from those of another.
const HashLabel = appsv1.DefaultDeploymentUniqueLabelKey

// Hash names the revision of a template. The JSON form is hashed rather than the Go value, so that a field which a later
// version adds, and which nobody sets, leaves every hash as it was. The collision count, when there is one, leads to
// another hash for the same template. An error means that the template can't be written as JSON.
func Hash(template *pcorev1.PodTemplateSpec, collisions *int32) (string, error) {
	raw, err := json.Marshal(template)
	if err != nil {
		return "", fmt.Errorf("writing the pod template as JSON: %w", err)
	}
	sum := fnv.New32a()
	sum.Write(raw)
	if collisions != nil {
		var salt [8]byte
		binary.LittleEndian.PutUint32(salt[:], uint32(*collisions))
		sum.Write(salt[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(sum.Sum32())), nil
}

// Equal says whether two templates make the same pods. HashLabel is left out of the comparison: a Deployment's own template
// has none.
func Equal(a, b *pcorev1.PodTemplateSpec) bool {
	left, right := *a, *b // shallow: only the label map is replaced
	left.Labels, right.Labels = withoutHash(a.Labels), withoutHash(b.Labels)
	return equality.Semantic.DeepEqual(left, right)
}

func withoutHash(labels map[string]string) map[string]string {
	if _, ok := labels[HashLabel]; !ok {
		return labels
	}
	out := maps.Clone(labels)
	delete(out, HashLabel)
	return out
}

// WithHash returns a copy of the template whose labels carry the hash.
func WithHash(template *pcorev1.PodTemplateSpec, hash string) pcorev1.PodTemplateSpec {
	out := *template.DeepCopy()
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[HashLabel] = hash
	return out
}

// WithoutHash returns a copy of the template whose labels carry no hash.
func WithoutHash(template *pcorev1.PodTemplateSpec) pcorev1.PodTemplateSpec {
	out := *template.DeepCopy()
	delete(out.Labels, HashLabel)
	return out
}

// SelectorWithHash returns a copy of the selector that matches only pods which carry the hash.
func SelectorWithHash(selector *metav1.LabelSelector, hash string) *metav1.LabelSelector {
	out := selector.DeepCopy()
	if out.MatchLabels == nil {
		out.MatchLabels = map[string]string{}
	}
	out.MatchLabels[HashLabel] = hash
	return out
}
