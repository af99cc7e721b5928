// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// claimName is the name of a pod's claim; upstream's form, which spreading over zones relies on.
func claimName(template, set string, ordinal int) string {
	return template + "-" + podName(set, ordinal)
}

// makeClaim makes the claim of an ordinal. It belongs to the set when it is to be deleted with it.
func (s *scope) makeClaim(t *corev1.PersistentVolumeClaim, ordinal int) *pcorev1.PersistentVolumeClaim {
	t = t.DeepCopy()
	claim := &pcorev1.PersistentVolumeClaim{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	claim.Name, claim.Namespace = claimName(t.Name, s.set.Name, ordinal), s.set.Namespace
	for key, value := range s.set.Spec.Selector.MatchLabels {
		if claim.Labels == nil {
			claim.Labels = map[string]string{}
		}
		claim.Labels[key] = value
	}
	if s.settings.deleteDeleted {
		claim.OwnerReferences = append(claim.OwnerReferences, *metav1.NewControllerRef(s.set, kind))
	}
	return claim
}

// claimWork is what is to be done about the claims of one ordinal.
type claimWork struct {
	create []*pcorev1.PersistentVolumeClaim
	update []claimChange
	// blocked says why the pod can't be made now; empty when it can.
	blocked string
}

type claimChange struct {
	before, after *pcorev1.PersistentVolumeClaim
}

func (w *claimWork) none() bool { return len(w.create)+len(w.update) == 0 }

// claimsFor plans the claims of one ordinal: those that the revision's pods need and that aren't there are made when missing is true, the
// others follow the retention policy and grow. pod is the ordinal's pod, nil while there is none.
func (s *scope) claimsFor(rev release, ordinal int, pod *pcorev1.Pod, missing bool) claimWork {
	var w claimWork
	needed := map[string]bool{}
	for _, t := range rev.claimTemplates(s.set) {
		needed[t.Name] = true
	}
	for i := range s.set.Spec.VolumeClaimTemplates {
		t := &s.set.Spec.VolumeClaimTemplates[i]
		name := claimName(t.Name, s.set.Name, ordinal)
		claim := s.claims[name]
		switch {
		case claim == nil && needed[t.Name] && missing:
			w.create = append(w.create, s.makeClaim(t, ordinal))
		case claim == nil:
		case claim.DeletionTimestamp != nil:
			if needed[t.Name] {
				w.blocked = fmt.Sprintf("Claim %s is being deleted; pod %s waits for its end.", name, podName(s.set.Name, ordinal))
			}
		case pod == nil && s.settings.deleteScaled && isStale(claim, s.set.Name, ordinal):
			w.blocked = fmt.Sprintf("Claim %s still belongs to a former pod %s and goes with it; the new one waits for its end.", name, podName(s.set.Name, ordinal))
		default:
			if after := s.follow(t, claim, ordinal, pod); after != nil {
				w.update = append(w.update, claimChange{claim, after})
			}
		}
	}
	return w
}

// follow returns the claim as it should be, nil when it is right.
func (s *scope) follow(t *corev1.PersistentVolumeClaim, claim *pcorev1.PersistentVolumeClaim, ordinal int, pod *pcorev1.Pod) *pcorev1.PersistentVolumeClaim {
	refs, changed := s.retention(claim, ordinal, pod)
	grows := s.inRange(ordinal) && s.growth(t, claim).now
	if !changed && !grows {
		return nil
	}
	after := claim.DeepCopy()
	after.OwnerReferences = refs
	if grows {
		if after.Spec.Resources.Requests == nil {
			after.Spec.Resources.Requests = corev1.ResourceList{}
		}
		after.Spec.Resources.Requests[corev1.ResourceStorage] = size(t)
	}
	return after
}

func (s *scope) inRange(ordinal int) bool {
	return ordinal >= s.settings.start && ordinal < s.settings.end()
}

// isStale says whether a claim belongs to a former pod of that ordinal: garbage collection is about to delete it.
func isStale(claim *pcorev1.PersistentVolumeClaim, set string, ordinal int) bool {
	for i := range claim.OwnerReferences {
		if isPodRef(&claim.OwnerReferences[i], podName(set, ordinal)) {
			return true
		}
	}
	return false
}

func isPodRef(ref *metav1.OwnerReference, name string) bool {
	return ref.APIVersion == podKind.GroupVersion().String() && ref.Kind == podKind.Kind && ref.Name == name
}

func isSetRef(ref *metav1.OwnerReference, set *pappsv1.StatefulSet) bool {
	return ref.APIVersion == kind.GroupVersion().String() && ref.Kind == kind.Kind && ref.Name == set.Name
}

// retention returns the owners that a claim should have, and whether they differ from those that it has. The rules are upstream's
// (isClaimOwnerUpToDate, updateClaimOwnerRefForSetAndPod):
//
//	whenScaled  whenDeleted   pod in range   pod beyond it
//	Retain      Retain        –              –
//	Retain      Delete        set            set
//	Delete      Retain        –              pod
//	Delete      Delete        set            pod
//
// A claim that belonged to a former set or pod of the same name is left alone; beside another controller nobody becomes an owner.
func (s *scope) retention(claim *pcorev1.PersistentVolumeClaim, ordinal int, pod *pcorev1.Pod) (refs []metav1.OwnerReference, changed bool) {
	name := podName(s.set.Name, ordinal)
	var haveSet, havePod, foreign, weak bool
	for i := range claim.OwnerReferences {
		ref := &claim.OwnerReferences[i]
		controls := ref.Controller != nil && *ref.Controller
		switch {
		case isSetRef(ref, s.set):
			if ref.UID != s.set.UID {
				return claim.OwnerReferences, false
			}
			haveSet, weak = true, weak || !controls
		case isPodRef(ref, name):
			if pod == nil || ref.UID != pod.UID {
				return claim.OwnerReferences, false
			}
			havePod, weak = true, weak || !controls
		default:
			foreign = foreign || controls
			refs = append(refs, *ref)
		}
	}
	var wantSet, wantPod bool
	if !foreign {
		scaled := !s.inRange(ordinal)
		wantSet = s.settings.deleteDeleted && (!s.settings.deleteScaled || !scaled)
		wantPod = s.settings.deleteScaled && scaled && pod != nil
	}
	if wantSet == haveSet && wantPod == havePod && !weak {
		return claim.OwnerReferences, false
	}
	if wantPod {
		refs = append(refs, *metav1.NewControllerRef(pod, podKind))
	}
	if wantSet {
		refs = append(refs, *metav1.NewControllerRef(s.set, kind))
	}
	return refs, true
}
