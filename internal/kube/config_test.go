// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// TestPrunedSnapshotIsMadeAgain: config goes back to what it was while the snapshot of that is being cleared away. The cache shows the
// change before it shows the end of the snapshot, which must not be taken for one that is there.
func TestPrunedSnapshotIsMadeAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := lagging.New(t, lagging.Options{Schemes: []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme}})
		owner := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: "db", UID: "owner"}}
		lagging.UseConfig(&owner.Spec.Template)
		gvk := pappsv1.GroupVersion.WithKind("StatefulSet")
		configs := kube.NewConfigs(w.Client(), w.Live())
		configs.Attach(w.Manager())
		ensure := func() revision.Pinned {
			pinned, err := configs.Pin(t.Context(), pappsv1.RolloutOnConfig, owner, gvk, &owner.Spec.Template)
			w.Must(err)
			w.Must(configs.Ensure(t.Context(), owner, gvk, pinned.Snapshots))
			return pinned
		}
		w.SetConfig("one")
		w.SeeAll()
		first := ensure()
		w.SeeAll()
		w.SetConfig("two")
		w.SeeAll()
		second := ensure()
		w.SeeAll()
		w.SetConfig("one")
		_, err := configs.Prune(t.Context(), owner, []*pcorev1.PodTemplateSpec{second.Template}, time.Now())
		w.Must(err)
		w.See(&pcorev1.ConfigMap{}, 1)
		if again := ensure(); again.Template.Spec.Volumes[0].ConfigMap.Name != first.Template.Spec.Volumes[0].ConfigMap.Name {
			t.Fatalf("the config of %v isn't seen", again.Snapshots)
		}
		if found := w.ConfigOf(&first.Template.Spec.PodSpec); found != "one" {
			t.Fatalf("pods find %q", found)
		}
	})
}
