// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

const (
	// HistoryHashLabel is the label of a StatefulSet's ControllerRevisions that holds their hash; upstream's
	// (k8s.io/kubernetes pkg/controller/history). A DaemonSet's carry PodRevisionLabel in its place.
	HistoryHashLabel = "controller.kubernetes.io/hash"
	// PodRevisionLabel tells the pods of one revision from those of another: a StatefulSet writes the name of the
	// ControllerRevision there, a DaemonSet its hash.
	PodRevisionLabel = appsv1.ControllerRevisionHashLabelKey
	// ClaimsAnnotation lists the names of the volumeClaimTemplates that a StatefulSet had when the revision was made. It is
	// an extension: upstream's can't change. A revision without it fits any.
	ClaimsAnnotation = "apps.pinnace.dev/claim-templates"
)

// maxOwnerName keeps a revision's name within 253 characters; upstream's number.
const maxOwnerName = 223

// Snapshot is what one revision holds.
type Snapshot struct {
	// Template is the pods' template.
	Template *pcorev1.PodTemplateSpec
	// Claims are the names of the claim templates, sorted. It is nil where nobody noted them, which fits any, and empty where there are
	// none.
	Claims []string
}

// HistoryOwner is whose revisions they are.
type HistoryOwner struct {
	// Object is the owner; its annotations are copied to new revisions, as upstream does (the change cause is one).
	Object metav1.Object
	// Kind is the owner's.
	Kind schema.GroupVersionKind
	// HashLabel is the label that new revisions carry their hash in.
	HashLabel string
}

// Data makes the data of a ControllerRevision in upstream's form: a strategic merge patch that replaces the template as a
// whole, with sorted keys. An error means that the template can't be written as JSON.
func Data(template *pcorev1.PodTemplateSpec) (runtime.RawExtension, error) {
	raw, err := json.Marshal(template)
	if err != nil {
		return runtime.RawExtension{}, fmt.Errorf("writing the pod template as JSON: %w", err)
	}
	// Integers must not pass through floats, so each field of the template is kept as it is written.
	fields := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		return runtime.RawExtension{}, fmt.Errorf("reading the pod template's JSON: %w", err)
	}
	fields["$patch"] = "replace"
	raw, err = json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
	if err != nil {
		return runtime.RawExtension{}, fmt.Errorf("writing the revision as JSON: %w", err)
	}
	return runtime.RawExtension{Raw: raw}, nil
}

// Read returns what a ControllerRevision holds. An error names the revision.
func Read(rev *pappsv1.ControllerRevision) (Snapshot, error) {
	var data struct {
		Spec struct {
			Template *pcorev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(rev.Data.Raw, &data); err != nil {
		return Snapshot{}, fmt.Errorf("reading the data of ControllerRevision %s: %w", rev.Name, err)
	}
	if data.Spec.Template == nil {
		return Snapshot{}, fmt.Errorf("the data of ControllerRevision %s has no spec.template", rev.Name)
	}
	return Snapshot{Template: data.Spec.Template, Claims: claimsOf(rev)}, nil
}

func claimsOf(rev *pappsv1.ControllerRevision) []string {
	list, noted := rev.Annotations[ClaimsAnnotation]
	switch {
	case !noted:
		return nil
	case list == "":
		return []string{}
	}
	return strings.Split(list, ",")
}

// HashOf names the content of a revision. A collision count that isn't nil leads to another hash for the same content. Without claims it
// is upstream's (pkg/controller/history, HashControllerRevision).
func HashOf(data runtime.RawExtension, claims []string, collisions *int32) string {
	sum := fnv.New32()
	sum.Write(data.Raw)
	if len(claims) > 0 {
		sum.Write([]byte(strings.Join(claims, ",")))
	}
	if collisions != nil {
		sum.Write([]byte(strconv.FormatInt(int64(*collisions), 10)))
	}
	return rand.SafeEncodeString(fmt.Sprint(sum.Sum32()))
}

// NewRevision makes the ControllerRevision of a snapshot, with that number. Its name depends on the owner's name, the content and the
// collision count alone, so that creating it twice meets the same object.
func NewRevision(owner HistoryOwner, s Snapshot, number int64, collisions *int32) (*pappsv1.ControllerRevision, error) {
	data, err := Data(s.Template)
	if err != nil {
		return nil, err
	}
	rev := &pappsv1.ControllerRevision{Data: data, Revision: number}
	rev.Namespace = owner.Object.GetNamespace()
	hash := HashOf(data, s.Claims, collisions)
	prefix := owner.Object.GetName()
	if len(prefix) > maxOwnerName {
		prefix = prefix[:maxOwnerName]
	}
	rev.Name = prefix + "-" + hash
	rev.Labels = maps.Clone(s.Template.Labels)
	if rev.Labels == nil {
		rev.Labels = map[string]string{}
	}
	rev.Labels[owner.HashLabel] = hash
	for key, value := range owner.Object.GetAnnotations() {
		if !IsOwn(key) && key != ClaimsAnnotation {
			annotate(rev, key, value)
		}
	}
	if s.Claims != nil {
		annotate(rev, ClaimsAnnotation, strings.Join(s.Claims, ","))
	}
	rev.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner.Object, owner.Kind)}
	return rev, nil
}

func annotate(rev *pappsv1.ControllerRevision, key, value string) {
	if rev.Annotations == nil {
		rev.Annotations = map[string]string{}
	}
	rev.Annotations[key] = value
}

// Holds says whether a revision's content is that of another. Content that is written differently and means the same is the same:
// otherwise a newer version of the libraries, which writes an empty field where the older one wrote none, would roll everything out.
func Holds(rev, other *pappsv1.ControllerRevision) bool {
	if a, b := claimsOf(rev), claimsOf(other); a != nil && b != nil && !slices.Equal(a, b) {
		return false
	}
	if bytes.Equal(rev.Data.Raw, other.Data.Raw) {
		return true
	}
	a, errA := Read(rev)
	b, errB := Read(other)
	return errA == nil && errB == nil && equality.Semantic.DeepEqual(a.Template, b.Template)
}

// History are the revisions of one owner, the newest last.
type History []*pappsv1.ControllerRevision

// NewHistory sorts revisions by their number; equal ones by age, then by name. The list given is not changed.
func NewHistory(revisions []*pappsv1.ControllerRevision) History {
	h := slices.Clone(revisions)
	slices.SortStableFunc(h, func(a, b *pappsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return h
}

// Next is the number of the next revision.
func (h History) Next() int64 {
	if len(h) == 0 {
		return 1
	}
	return h[len(h)-1].Revision + 1
}

// Named returns the revision of that name; nil when there is none.
func (h History) Named(name string) *pappsv1.ControllerRevision {
	for _, rev := range h {
		if rev.Name == name {
			return rev
		}
	}
	return nil
}

// Step is what has to happen so that the newest revision of a history holds a snapshot.
type Step struct {
	// Use is the revision that holds it already; nil when there is none.
	Use *pappsv1.ControllerRevision
	// Number is the number that Use must get; 0 when it is the newest as it is.
	Number int64
	// Create is the revision to make when there is none.
	Create *pappsv1.ControllerRevision
}

// Step decides how the newest revision comes to hold the snapshot: the newest holds it, an older one does and becomes the newest
// again (a rollback), or a new one is made.
func (h History) Step(owner HistoryOwner, s Snapshot, collisions *int32) (Step, error) {
	if collisions == nil {
		collisions = new(int32) // upstream's first revision is hashed with a count of zero
	}
	want, err := NewRevision(owner, s, h.Next(), collisions)
	if err != nil {
		return Step{}, err
	}
	for i := len(h) - 1; i >= 0; i-- {
		if !Holds(h[i], want) {
			continue
		}
		if i == len(h)-1 {
			return Step{Use: h[i]}, nil
		}
		return Step{Use: h[i], Number: want.Revision}, nil
	}
	return Step{Create: want}, nil
}

// Surplus returns the revisions to delete, the oldest first, so that at most limit of those that aren't live stay. A negative
// limit keeps all. live says whether pods or the status still name a revision.
func (h History) Surplus(limit int32, live func(*pappsv1.ControllerRevision) bool) []*pappsv1.ControllerRevision {
	var old []*pappsv1.ControllerRevision
	for _, rev := range h {
		if !live(rev) && rev.DeletionTimestamp == nil {
			old = append(old, rev)
		}
	}
	if limit < 0 || len(old) <= int(limit) {
		return nil
	}
	return old[:len(old)-int(limit)]
}
