// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// world describes a set and its pods for a table test: one word a pod, NAME:REVISION:STATE, where the state is one of up, down (ready once),
// new (never ready), going (deleted), pending, failed, young (ready for a second).
type world struct {
	pods   string
	change func(*pappsv1.StatefulSet)
	claims []*pcorev1.PersistentVolumeClaim
	// classes says of classes whether they allow growth.
	classes map[string]bool
}

func (w world) scope(t *testing.T) *scope {
	t.Helper()
	set := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "test", UID: "set", Generation: 1}}
	set.Spec.Replicas = new(int32(3))
	set.Spec.ServiceName = "dbs"
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}
	set.Spec.Template.Labels = map[string]string{"app": "db"}
	if w.change != nil {
		w.change(set)
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	s := &scope{set: set, selector: selector, now: testNow, claims: map[string]*pcorev1.PersistentVolumeClaim{}, expandable: w.classes}
	if s.settings, err = readSettings(&set.Spec); err != nil {
		t.Fatal(err)
	}
	s.attempt, _ = makeAttempt(s)
	snapshot := revision.Snapshot{Template: &set.Spec.Template}
	s.current, s.update = release{"old", snapshot}, release{"new", snapshot}
	for _, word := range strings.Fields(w.pods) {
		parts := strings.Split(word, ":")
		s.pods = append(s.pods, testPod(parts[0], parts[1], parts[2]))
	}
	for _, c := range w.claims {
		s.claims[c.Name] = c
	}
	return s
}

func testPod(name, rev, state string) *pcorev1.Pod {
	pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "test", UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(testNow.Add(-time.Hour)),
		Labels: map[string]string{"app": "db", revision.PodRevisionLabel: rev, appsv1.StatefulSetPodNameLabel: name},
	}}
	started, changed := metav1.NewTime(testNow.Add(-time.Hour)), metav1.NewTime(testNow.Add(-30*time.Minute))
	ready := corev1.ConditionTrue
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &started
	switch state {
	case "up":
	case "young":
		changed = metav1.NewTime(testNow.Add(-time.Second))
	case "going":
		at := metav1.NewTime(testNow)
		pod.DeletionTimestamp = &at
	case "down":
		ready = corev1.ConditionFalse
	case "new":
		ready, changed = corev1.ConditionFalse, started
	case "pending":
		pod.Status = pcorev1.PodStatus{}
		return pod
	case "failed":
		pod.Status.Phase, ready = corev1.PodFailed, corev1.ConditionFalse
	default:
		panic("no state " + state)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: changed}}
	return pod
}

func parallel(set *pappsv1.StatefulSet) {
	set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
}

func onDelete(set *pappsv1.StatefulSet) {
	set.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
}

func rolling(partition int32, unavailable intstr.IntOrString) func(*pappsv1.StatefulSet) {
	return func(set *pappsv1.StatefulSet) {
		set.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition, MaxUnavailable: &unavailable}
	}
}

func size3(n int32) func(*pappsv1.StatefulSet) {
	return func(set *pappsv1.StatefulSet) { set.Spec.Replicas = &n }
}

func all(changes ...func(*pappsv1.StatefulSet)) func(*pappsv1.StatefulSet) {
	return func(set *pappsv1.StatefulSet) {
		for _, c := range changes {
			c(set)
		}
	}
}

// steps writes a plan as one line; a bar stands between stages.
func steps(p plan) string {
	return strings.TrimSuffix(strings.ReplaceAll(strings.Trim(p.String(), "[]"), " ; ", " | "), " ;")
}

func TestPlan(t *testing.T) {
	one := intstr.FromInt32(1)
	two := intstr.FromInt32(2)
	for what, test := range map[string]struct {
		world
		want string
	}{
		"the first pod":                              {world{}, "+db-0@new"},
		"the second waits for the first":             {world{pods: "db-0:new:pending"}, ""},
		"the second waits until the first is ready":  {world{pods: "db-0:new:new"}, ""},
		"the second":                                 {world{pods: "db-0:new:up"}, "+db-1@new"},
		"nothing to do":                              {world{pods: "db-0:new:up db-1:new:up db-2:new:up"}, ""},
		"available counts, not ready":                {world{pods: "db-0:new:young", change: func(s *pappsv1.StatefulSet) { s.Spec.MinReadySeconds = 5 }}, ""},
		"all at once":                                {world{change: parallel}, "+db-0@new +db-1@new +db-2@new"},
		"the gap in the middle":                      {world{pods: "db-0:new:up db-2:new:up"}, "+db-1@new"},
		"the gap waits for its predecessor":          {world{pods: "db-0:new:down db-2:new:up"}, ""},
		"ordinals start elsewhere":                   {world{pods: "db-5:new:up", change: func(s *pappsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} }}, "+db-6@new"},
		"a new start moves the set":                  {world{pods: "db-0:new:up db-1:new:up db-2:new:up", change: all(size3(2), func(s *pappsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 1} })}, "-db-0"},
		"a failed pod goes":                          {world{pods: "db-0:new:failed db-1:new:up db-2:new:up"}, "-db-0"},
		"a failed pod goes, its successors wait":     {world{pods: "db-0:new:failed db-1:new:failed db-2:new:up"}, "-db-0"},
		"failed pods go":                             {world{pods: "db-0:new:failed db-1:new:failed db-2:new:up", change: parallel}, "-db-0 -db-1"},
		"a deleted pod is waited for":                {world{pods: "db-0:new:going"}, ""},
		"a deleted pod isn't waited for":             {world{pods: "db-0:new:going", change: parallel}, "+db-1@new +db-2@new"},
		"scaling down, the highest first":            {world{pods: "db-0:new:up db-1:new:up db-2:new:up", change: size3(1)}, "-db-2"},
		"scaling down waits for the one before":      {world{pods: "db-0:new:up db-1:new:up db-2:new:going", change: size3(1)}, ""},
		"scaling down waits for wanted pods":         {world{pods: "db-0:new:down db-1:new:up db-2:new:up", change: size3(1)}, ""},
		"scaling down waits for one that is down":    {world{pods: "db-0:new:up db-1:new:down db-2:new:up", change: size3(1)}, "-db-2"},
		"scaling down, the lowest down blocks":       {world{pods: "db-0:new:up db-1:new:down db-2:new:down", change: size3(1)}, ""},
		"scaling down what ended":                    {world{pods: "db-0:new:up db-1:new:failed db-2:new:failed", change: size3(1)}, "-db-2"},
		"scaling down does not wait for what ended":  {world{pods: "db-0:new:up db-1:new:failed db-2:new:down", change: size3(1)}, "-db-2"},
		"scaling down what was never ready":          {world{pods: "db-0:new:up db-1:new:down db-2:old:new", change: size3(1)}, "-db-2"},
		"scaling down the only one that is down":     {world{pods: "db-0:new:up db-1:new:up db-2:new:down", change: size3(1)}, "-db-2"},
		"scaling down all at once":                   {world{pods: "db-0:new:down db-1:new:up db-2:new:up", change: all(size3(0), parallel)}, "-db-2 -db-1 -db-0"},
		"scaling down comes before updating":         {world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: size3(2)}, "-db-2"},
		"updating, the highest first":                {world{pods: "db-0:old:up db-1:old:up db-2:old:up"}, "-db-2"},
		"updating waits for the updated one":         {world{pods: "db-0:old:up db-1:old:up db-2:new:new"}, ""},
		"updating goes on":                           {world{pods: "db-0:old:up db-1:old:up db-2:new:up"}, "-db-1"},
		"updating two at a time":                     {world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: rolling(0, two)}, "-db-2 -db-1"},
		"updating a share":                           {world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: rolling(0, intstr.FromString("70%"))}, "-db-2 -db-1"},
		"a small share is one":                       {world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: rolling(0, intstr.FromString("1%"))}, "-db-2"},
		"updating to the partition":                  {world{pods: "db-0:old:up db-1:old:up db-2:new:up", change: rolling(2, one)}, ""},
		"below the partition comes the current":      {world{pods: "db-1:old:up db-2:new:up", change: rolling(2, one)}, "+db-0@old"},
		"above the partition comes the newest":       {world{pods: "db-0:old:up db-1:old:up", change: rolling(2, one)}, "+db-2@new"},
		"the partition counts from the start":        {world{pods: "db-5:old:up db-6:old:up", change: all(rolling(2, one), func(s *pappsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} })}, "+db-7@new"},
		"on delete, nothing is updated":              {world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: onDelete}, ""},
		"on delete, a missing pod is of the newest":  {world{pods: "db-0:old:up db-2:old:up", change: onDelete}, "+db-1@new"},
		"updating in parallel, one at a time":        {world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: parallel}, "-db-2"},
		"updating in parallel, the budget is spent":  {world{pods: "db-0:old:up db-1:old:up db-2:new:new", change: parallel}, ""},
		"updating in parallel, what is down first":   {world{pods: "db-0:old:down db-1:old:up db-2:old:up", change: parallel}, "-db-0"},
		"updating in parallel, all that is down":     {world{pods: "db-0:old:down db-1:old:down db-2:old:up", change: all(parallel, rolling(0, two))}, "-db-1 -db-0"},
		"a bad revision is got out of":               {world{pods: "db-0:other:up db-1:other:up db-2:old:new"}, "-db-2"},
		"a pending pod of a bad revision":            {world{pods: "db-0:other:up db-1:other:up db-2:old:pending"}, "-db-2"},
		"the first pod of a bad revision":            {world{pods: "db-0:old:new"}, "-db-0"},
		"one of a bad revision that was ready waits": {world{pods: "db-0:other:up db-1:other:up db-2:old:down"}, ""},
		"a bad pod whose predecessor is down":        {world{pods: "db-0:new:down db-1:new:up db-2:old:new"}, "-db-2"},
		"a bad pod of the newest revision stays":     {world{pods: "db-0:old:up db-1:old:up db-2:new:new"}, ""},
		"a bad pod below the partition stays":        {world{pods: "db-0:other:new db-1:new:up db-2:new:up", change: rolling(1, one)}, ""},
		"a bad pod with on delete stays":             {world{pods: "db-0:old:new", change: onDelete}, ""},
		"a set that goes does nothing": {world{pods: "db-0:old:up", change: func(s *pappsv1.StatefulSet) {
			at := metav1.NewTime(testNow)
			s.DeletionTimestamp = &at
		}}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			if got := steps(makePlan(test.scope(t))); got != test.want {
				t.Errorf("plan %q, want %q", got, test.want)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	s := world{pods: "db-0:new:up db-1:new:up db-2:new:up", change: func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{testTemplate("data", "1Gi")}
		set.Spec.Template.Annotations = map[string]string{"note": "x"}
		set.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "tmp"}}
	}}.scope(t)
	pod := makePod(s.set, s.update, 7)
	want := map[string]string{
		"app": "db", "controller-revision-hash": "new", "statefulset.kubernetes.io/pod-name": "db-7", "apps.kubernetes.io/pod-index": "7",
	}
	if diff := cmp.Diff(want, pod.Labels); diff != "" {
		t.Error(diff)
	}
	if pod.Name != "db-7" || pod.Spec.Hostname != "db-7" || pod.Spec.Subdomain != "dbs" || pod.Annotations["note"] != "x" || !metav1.IsControlledBy(pod, s.set) {
		t.Errorf("pod %+v", pod)
	}
	var volumes []string
	for _, v := range pod.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	if diff := cmp.Diff([]string{"data", "tmp"}, volumes); diff != "" || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-db-7" {
		t.Errorf("volumes %+v", pod.Spec.Volumes)
	}
	delete(s.pods[1].Labels, appsv1.StatefulSetPodNameLabel)
	for _, name := range []string{"data-db-0", "data-db-1", "data-db-2"} {
		s.claims[name] = testClaim(name, "1Gi", "")
	}
	if got := steps(makePlan(s)); got != "~db-1" {
		t.Errorf("plan %q", got)
	}
	for name, ordinal := range map[string]int{"db-0": 0, "db-17": 17, "db-01": -1, "db": -1, "db-": -1, "db-x": -1, "db-0-1": -1, "a-db-1": -1, "db-99999999999": -1, "db--1": -1} {
		if got := ordinalOf("db", name); got != ordinal {
			t.Errorf("ordinal of %s is %d, want %d", name, got, ordinal)
		}
	}
}

func testTemplate(name, size string) corev1.PersistentVolumeClaim {
	c := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": "gold"}}}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	return c
}

func testClaim(name, size, class string) *pcorev1.PersistentVolumeClaim {
	t := testTemplate(name, size)
	c := &pcorev1.PersistentVolumeClaim{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	c.Status.Phase, c.Status.Capacity = corev1.ClaimBound, t.Spec.Resources.Requests.DeepCopy()
	if class != "" {
		c.Spec.StorageClassName = &class
	}
	return c
}

func TestClaims(t *testing.T) {
	withData := func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{testTemplate("data", "2Gi")}
	}
	policy := func(scaled, deleted bool) func(*pappsv1.StatefulSet) {
		return func(set *pappsv1.StatefulSet) {
			p := &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: "Retain", WhenDeleted: "Retain"}
			if scaled {
				p.WhenScaled = "Delete"
			}
			if deleted {
				p.WhenDeleted = "Delete"
			}
			set.Spec.PersistentVolumeClaimRetentionPolicy = p
		}
	}
	going := testClaim("data-db-0", "2Gi", "")
	at := metav1.NewTime(testNow)
	going.DeletionTimestamp = &at
	stale := testClaim("data-db-0", "2Gi", "")
	stale.OwnerReferences = []metav1.OwnerReference{{APIVersion: "core.pinnace.dev/v1", Kind: "Pod", Name: "db-0", UID: "former"}}
	loose := testClaim("data-db-0", "1Gi", "fast")
	loose.Status = pcorev1.PersistentVolumeClaimStatus{}
	for what, test := range map[string]struct {
		world
		want, blocked string
	}{
		"claims come before their pod":      {world{change: all(size3(1), withData)}, "+data-db-0 +db-0@new", ""},
		"a claim that is there serves":      {world{change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "2Gi", "")}}, "+db-0@new", ""},
		"a pending pod gets its claim back": {world{pods: "db-0:new:pending", change: all(size3(1), withData)}, "+data-db-0", ""},
		"a running pod doesn't":             {world{pods: "db-0:new:up", change: all(size3(1), withData)}, "", ""},
		"a claim that goes blocks its pod":  {world{change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{going}}, "", "Claim data-db-0 is being deleted"},
		"a stale claim blocks its pod":      {world{change: all(size3(1), withData, policy(true, false)), claims: []*pcorev1.PersistentVolumeClaim{stale}}, "", "still belongs to a former pod db-0"},
		"a claim of a former pod is kept":   {world{change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{stale}}, "+db-0@new", ""},
		"a claim becomes the set's":         {world{pods: "db-0:new:up", change: all(size3(1), withData, policy(false, true)), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "2Gi", "")}}, "~data-db-0", ""},
		"claims go with scaled pods":        {world{pods: "db-0:new:up db-1:new:up", change: all(size3(1), withData, policy(true, false)), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "2Gi", ""), testClaim("data-db-1", "2Gi", "")}}, "~data-db-1 | -db-1", ""},
		"a claim grows":                     {world{pods: "db-0:new:up", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "1Gi", "fast")}, classes: map[string]bool{"fast": true}}, "~data-db-0", ""},
		"a claim of a class that can't":     {world{pods: "db-0:new:up", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "1Gi", "fast")}, classes: map[string]bool{"fast": false}}, "", ""},
		"a claim without a class":           {world{pods: "db-0:new:up", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "1Gi", "")}}, "", ""},
		"a claim that isn't bound":          {world{pods: "db-0:new:pending", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{loose}, classes: map[string]bool{"fast": true}}, "", ""},
		"a claim that is larger stays":      {world{pods: "db-0:new:up", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "3Gi", "fast")}, classes: map[string]bool{"fast": true}}, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			p := makePlan(test.scope(t))
			if got := steps(p); got != test.want {
				t.Errorf("plan %q, want %q", got, test.want)
			}
			if (test.blocked == "") != (p.blocked == "") || !strings.Contains(p.blocked, test.blocked) {
				t.Errorf("blocked %q, want %q", p.blocked, test.blocked)
			}
		})
	}
	s := world{change: all(size3(1), withData, policy(false, true))}.scope(t)
	claim := makePlan(s).stages[0].tasks[0].claims.create[0]
	if diff := cmp.Diff(map[string]string{"app": "db", "tier": "gold"}, claim.Labels); diff != "" || !metav1.IsControlledBy(claim, s.set) {
		t.Errorf("claim %+v", claim)
	}
	// A revision from before a template was added makes pods without its volume.
	s.update.Claims = []string{}
	if got := steps(makePlan(s)); got != "+db-0@new" {
		t.Errorf("plan %q", got)
	}
}

// TestRetention walks through upstream's table of owners.
func TestRetention(t *testing.T) {
	set := metav1.OwnerReference{APIVersion: "apps.pinnace.dev/v1", Kind: "StatefulSet", Name: "db", UID: "set", Controller: new(true), BlockOwnerDeletion: new(true)}
	pod := metav1.OwnerReference{APIVersion: "core.pinnace.dev/v1", Kind: "Pod", Name: "db-0", UID: "uid-db-0", Controller: new(true), BlockOwnerDeletion: new(true)}
	weak, former, other := set, set, metav1.OwnerReference{APIVersion: "v1", Kind: "Thing", Name: "x", UID: "x", Controller: new(true)}
	weak.Controller, former.UID = nil, "former"
	type refs = []metav1.OwnerReference
	for what, test := range map[string]struct {
		scaled, deleted, beyond bool
		have, want              refs
		same                    bool
	}{
		"retain":                               {same: true},
		"retain, given up":                     {have: refs{set}},
		"deleted with the set":                 {deleted: true, want: refs{set}},
		"deleted with the set, is so":          {deleted: true, have: refs{set}, want: refs{set}, same: true},
		"deleted with the set, a weak owner":   {deleted: true, have: refs{weak}, want: refs{set}},
		"deleted with the set, beyond":         {deleted: true, beyond: true, want: refs{set}},
		"deleted when scaled":                  {scaled: true, same: true},
		"deleted when scaled, beyond":          {scaled: true, beyond: true, want: refs{pod}},
		"deleted when scaled, wanted again":    {scaled: true, have: refs{pod}},
		"deleted anyhow":                       {scaled: true, deleted: true, want: refs{set}},
		"deleted anyhow, beyond":               {scaled: true, deleted: true, beyond: true, have: refs{set}, want: refs{pod}},
		"of a former set":                      {deleted: true, have: refs{former}, want: refs{former}, same: true},
		"of another controller":                {deleted: true, have: refs{other}, want: refs{other}, same: true},
		"of another controller and of the set": {deleted: true, have: refs{other, set}, want: refs{other}},
	} {
		t.Run(what, func(t *testing.T) {
			s := world{pods: "db-0:new:up"}.scope(t)
			s.settings.deleteScaled, s.settings.deleteDeleted = test.scaled, test.deleted
			if test.beyond {
				s.settings.start = 1
			}
			claim := testClaim("data-db-0", "1Gi", "")
			claim.OwnerReferences = test.have
			got, changed := s.retention(claim, 0, s.pods[0])
			if diff := cmp.Diff(test.want, got); diff != "" || changed == test.same {
				t.Errorf("changed %v, %s", changed, diff)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	withData := func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{testTemplate("data", "2Gi")}
	}
	for what, test := range map[string]struct {
		world
		outcome
		// want is Replicas, Ready, Available, Current, Updated, and the current revision.
		want    string
		reason  string
		message string
		done    bool
	}{
		"nothing yet":           {world: world{}, want: "0 0 0 0 0 old", reason: "Progressing", message: "0 of 3 pods are available."},
		"all is well":           {world: world{pods: "db-0:new:up db-1:new:up db-2:new:up"}, want: "3 3 3 3 3 new", reason: "Available", message: "3 of 3 pods are available.", done: true},
		"no pods are wanted":    {world: world{change: size3(0)}, want: "0 0 0 0 0 new", reason: "Available", message: "0 of 0 pods are available.", done: true},
		"an update under way":   {world: world{pods: "db-0:old:up db-1:old:going db-2:new:up"}, want: "3 3 3 1 1 old", reason: "Progressing", message: "2 of 3 pods are available."},
		"an update to go on":    {world: world{pods: "db-0:old:up db-1:old:up db-2:new:up"}, want: "3 3 3 2 1 old", reason: "Progressing", message: "1 of 3 pods are of revision new or may stay as they are."},
		"the partition reached": {world: world{pods: "db-0:old:up db-1:old:up db-2:new:up", change: rolling(2, intstr.FromInt32(1))}, want: "3 3 3 2 1 old", reason: "Available", message: "3 of 3 pods are available.", done: true},
		"left to the user":      {world: world{pods: "db-0:old:up db-1:old:up db-2:old:up", change: onDelete}, want: "3 3 3 3 0 old", reason: "Available", message: "3 of 3 pods are available.", done: true},
		"too many":              {world: world{pods: "db-0:new:up db-1:new:up db-2:new:up db-3:new:up"}, want: "4 4 4 0 4 old", reason: "Progressing", message: "1 pods are still to go."},
		"a failed pod":          {world: world{pods: "db-0:new:failed db-1:new:up db-2:new:up"}, want: "3 2 2 0 3 old", reason: "PodFailed", message: "Pod db-0 failed: PodFailed."},
		"a refusal":             {world: world{}, outcome: outcome{applyErr: &failure{reasonFailedCreate, fmt.Errorf("creating pod db-0: no")}}, want: "0 0 0 0 0 old", reason: "FailedCreate", message: "creating pod db-0: no"},
		"ready for too short":   {world: world{pods: "db-0:new:young", change: all(size3(1), func(s *pappsv1.StatefulSet) { s.Spec.MinReadySeconds = 5 })}, want: "1 1 0 1 1 new", reason: "Progressing", message: "0 of 1 pods are available."},
		"a claim grows":         {world: world{pods: "db-0:new:up", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "1Gi", "fast")}, classes: map[string]bool{"fast": true}}, want: "1 1 1 1 1 new", reason: "ClaimsGrowing", message: "Claim data-db-0 grows from 1Gi to 2Gi."},
		"a claim is stuck":      {world: world{pods: "db-0:new:up", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{testClaim("data-db-0", "1Gi", "fast")}}, want: "1 1 1 1 1 new", reason: "ClaimCannotGrow", message: "Claim data-db-0 can't grow to 2Gi, because the StorageClass fast doesn't allow it (allowVolumeExpansion)."},
		"a claim isn't bound":   {world: world{pods: "db-0:new:pending", change: all(size3(1), withData), claims: []*pcorev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data-db-0"}}}}, want: "1 0 0 0 1 old", reason: "ClaimUnbound", message: "Pod db-0 waits for claim data-db-0, which isn't bound."},
	} {
		t.Run(what, func(t *testing.T) {
			status, _ := makeStatus(test.scope(t), test.outcome)
			got := fmt.Sprint(status.Replicas, status.ReadyReplicas, status.AvailableReplicas, status.CurrentReplicas, status.UpdatedReplicas, " ", status.CurrentRevision)
			if got != test.want {
				t.Errorf("counts %q, want %q", got, test.want)
			}
			c, _ := condition.StatefulSet.Get(status.Conditions, pcorev1.ConditionReady)
			if c.Reason != test.reason || c.Message != test.message || (c.Status == corev1.ConditionTrue) != test.done {
				t.Errorf("ready %+v", c)
			}
		})
	}
}
