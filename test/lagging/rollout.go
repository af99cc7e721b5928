// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package lagging

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

// app is the ConfigMap that pods refer to under rolloutOn: Config.
var app = types.NamespacedName{Namespace: "test", Name: "app"}

const content = "content"

// UseConfig makes a template refer to a ConfigMap, the content of which SetConfig says.
func UseConfig(template *pcorev1.PodTemplateSpec) {
	template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: "config", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: app.Name}},
	}})
}

// SetConfig changes what the ConfigMap holds, as a user does; nothing takes it away.
func (w *World) SetConfig(text string) {
	ctx := context.Background()
	config := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: app.Name}}
	err := w.server.Get(ctx, app, config)
	there := err == nil
	w.Must(client.IgnoreNotFound(err))
	config.Data = map[string]string{content: text}
	switch {
	case text == "" && there:
		w.Must(w.Truth.Delete(ctx, config))
	case text == "":
	case there:
		w.Must(w.Truth.Update(ctx, config))
	default:
		w.Must(w.Truth.Create(ctx, config))
	}
}

// Config is what the ConfigMap holds; empty while it isn't there.
func (w *World) Config() string {
	var config pcorev1.ConfigMap
	w.Must(client.IgnoreNotFound(w.server.Get(context.Background(), app, &config)))
	return config.Data[content]
}

// ConfigOf is what a pod of that spec finds; empty if it refers to no config. It refers to a snapshot, which must be there.
func (w *World) ConfigOf(spec *corev1.PodSpec) string {
	w.T.Helper()
	for _, v := range spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		var snapshot pcorev1.ConfigMap
		err := w.server.Get(context.Background(), types.NamespacedName{Namespace: app.Namespace, Name: v.ConfigMap.Name}, &snapshot)
		if err != nil || v.ConfigMap.Name == app.Name {
			w.Broken("a pod refers to ConfigMap %s, which is no snapshot: %v", v.ConfigMap.Name, err)
		}
		return snapshot.Data[content]
	}
	return ""
}

// Rollbacks holds what a workload says about its automatic rollbacks to docs/adr/0056, from one look at it to the next.
type Rollbacks struct {
	*World
	// tries counts the changes that try again, before how many there had been when the rollback was first seen that is in force.
	tries, before int
	last          *pappsv1.RollbackStatus
	// unseen says that the controller didn't see all config when it decided that: what it will see tries again, too.
	unseen bool
}

// Try notes a change that ends a rollback: of the spec, but for its size and its pause, or of config that it rolls out on.
func (r *Rollbacks) Try() { r.tries++ }

// Check looks at the status of a workload with ControllerRevisions, as the API server has it; verdict returns a condition. Each pod must find the
// config of its revision until it is deleted.
func (r *Rollbacks) Check(status *pappsv1.RolloutStatus, verdict func(kind string) condition.Condition) {
	r.T.Helper()
	for _, pod := range r.Pods() {
		if pod.DeletionTimestamp == nil {
			_ = r.ConfigOf(&pod.Spec.PodSpec)
		}
	}
	back := status.Rollback
	if r.last != nil && (back == nil || *back != *r.last) && r.tries == r.before && !r.unseen {
		r.T.Fatalf("the rollback ended though nobody tried again: %+v, then %+v", r.last, back)
	}
	if back != nil && (r.last == nil || *back != *r.last) {
		r.before, r.unseen = r.tries, slices.Contains(r.behind, r.kindOf(&pcorev1.ConfigMap{}))
	}
	r.last = back
	there := map[string]bool{"": true} // none was complete yet
	for _, rev := range Items[*pappsv1.ControllerRevision](r.World, &pappsv1.ControllerRevisionList{}) {
		there[rev.Name] = true
	}
	if !there[status.LastCompleteRevision] {
		r.T.Fatalf("the revision that was complete last, %s, is gone", status.LastCompleteRevision)
	}
	stalled, ready := verdict(pcorev1.ConditionStalled), verdict(pcorev1.ConditionReady)
	switch said := stalled.Status == corev1.ConditionTrue; {
	case said != (back != nil):
		r.T.Fatalf("stalled is %+v with rollback %+v", stalled, back)
	case back == nil:
	case !there[back.Revision], back.Revision == back.FailedRevision:
		r.T.Fatalf("rolled back from %s to %s; there are %v", back.FailedRevision, back.Revision, there)
	case ready.Status == corev1.ConditionTrue, stalled.Reason != back.Reason, back.Reason == "",
		!strings.Contains(stalled.Message, back.Revision), !strings.Contains(stalled.Message, back.FailedRevision+" made no progress for"):
		r.T.Fatalf("rollback %+v is explained by %+v; ready is %s", back, stalled, ready.Status)
	}
}
