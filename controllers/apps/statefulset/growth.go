// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// growth is how far a claim is on its way to the size of its template. Growing is an extension: upstream's templates can't change.
type growth struct {
	// done says that the volume has the size.
	done bool
	// now says that the claim should ask for the size in this look.
	now bool
	// stuck says that it can't, without help.
	stuck bool
	// message says what is missing; empty when done.
	message string
}

// size is what a template or claim asks for; zero when it asks for nothing.
func size(t *corev1.PersistentVolumeClaim) resource.Quantity {
	return t.Spec.Resources.Requests[corev1.ResourceStorage]
}

// growth judges one claim. A claim grows while it is bound, when its class allows that; it never shrinks, so a claim that was larger
// before the set found it stays as it is.
func (s *scope) growth(t *corev1.PersistentVolumeClaim, claim *pcorev1.PersistentVolumeClaim) growth {
	want, asked, have := size(t), claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	switch {
	case claim.Status.Phase == corev1.ClaimBound && have.Cmp(want) >= 0:
		return growth{done: true}
	case claim.Status.Phase == corev1.ClaimLost:
		return growth{stuck: true, message: fmt.Sprintf("Claim %s lost its volume.", claim.Name)}
	case claim.Status.Phase != corev1.ClaimBound:
		return growth{message: fmt.Sprintf("Claim %s isn't bound yet.", claim.Name)}
	case asked.Cmp(want) >= 0:
		return growth{message: fmt.Sprintf("Claim %s grows from %s to %s.", claim.Name, have.String(), want.String())}
	}
	class := className(claim)
	if class == "" {
		return growth{stuck: true, message: fmt.Sprintf("Claim %s can't grow to %s, because its volume has no storage class.", claim.Name, want.String())}
	}
	if allowed, known := s.expandable[class]; !known || !allowed {
		return growth{stuck: true, message: fmt.Sprintf("Claim %s can't grow to %s, because the StorageClass %s doesn't allow it (allowVolumeExpansion).", claim.Name, want.String(), class)}
	}
	return growth{now: true, message: fmt.Sprintf("Claim %s grows from %s to %s.", claim.Name, have.String(), want.String())}
}

func className(claim *pcorev1.PersistentVolumeClaim) string {
	if claim.Spec.StorageClassName == nil {
		return ""
	}
	return *claim.Spec.StorageClassName
}

// classesToKnow are the classes of the claims that should ask for more.
func (s *scope) classesToKnow() []string {
	names := map[string]bool{}
	s.eachClaim(func(t *corev1.PersistentVolumeClaim, claim *pcorev1.PersistentVolumeClaim) {
		if claim == nil || claim.Status.Phase != corev1.ClaimBound {
			return
		}
		want, asked := size(t), claim.Spec.Resources.Requests[corev1.ResourceStorage]
		if asked.Cmp(want) < 0 && className(claim) != "" {
			names[className(claim)] = true
		}
	})
	return slices.Sorted(maps.Keys(names))
}

// eachClaim visits the claims that the wanted pods should have, template by template; claim is nil where it isn't there.
func (s *scope) eachClaim(visit func(t *corev1.PersistentVolumeClaim, claim *pcorev1.PersistentVolumeClaim)) {
	for i := range s.set.Spec.VolumeClaimTemplates {
		t := &s.set.Spec.VolumeClaimTemplates[i]
		for ordinal := s.settings.start; ordinal < s.settings.end(); ordinal++ {
			visit(t, s.claims[claimName(t.Name, s.set.Name, ordinal)])
		}
	}
}

// claimStatus tells how far the claims are, one entry a template, and the first message of a claim that is stuck.
func (s *scope) claimStatus() (list []pappsv1.ClaimTemplateStatus, growing, stuck string) {
	for i := range s.set.Spec.VolumeClaimTemplates {
		t := &s.set.Spec.VolumeClaimTemplates[i]
		want := size(t)
		list = append(list, pappsv1.ClaimTemplateStatus{Name: t.Name, Requested: want.String(), Claims: int32(s.settings.replicas)})
	}
	at, worst := map[string]int{}, map[string]bool{}
	for i := range list {
		at[list[i].Name] = i
	}
	s.eachClaim(func(t *corev1.PersistentVolumeClaim, claim *pcorev1.PersistentVolumeClaim) {
		entry := &list[at[t.Name]]
		g := growth{message: "Not all claims are made yet."}
		if claim != nil {
			g = s.growth(t, claim)
		}
		if g.done {
			entry.Grown++
			return
		}
		if entry.Message == "" || g.stuck && !worst[t.Name] {
			entry.Message, worst[t.Name] = g.message, g.stuck
		}
		if g.stuck && stuck == "" {
			stuck = g.message
		}
		if growing == "" && claim != nil && claim.Status.Phase == corev1.ClaimBound {
			growing = g.message
		}
	})
	return list, growing, stuck
}
