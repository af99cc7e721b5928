// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package env_test

import (
	"context"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pinnace-dev/pinnace/test/env"
)

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.WithoutPinnaceCRDs(), env.WithControllerManager()))
}

// TestHeartbeat sees both halves of a generic loop: the default service
// account appears in a new namespace, and a deleted namespace goes away.
func TestHeartbeat(t *testing.T) {
	e := env.Start(t)
	name := e.Namespace(t)
	var account corev1.ServiceAccount
	eventually(t, "the default service account appears", func(ctx context.Context) bool {
		return e.Client.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &account) == nil
	})
	ns := &corev1.Namespace{}
	ns.Name = name
	if err := e.Client.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace goes away", func(ctx context.Context) bool {
		return apierrors.IsNotFound(e.Client.Get(ctx, client.ObjectKey{Name: name}, ns))
	})
}

// TestNativeKinds sees that the oracle's kinds are served.
func TestNativeKinds(t *testing.T) {
	e := env.Start(t)
	if err := e.Client.List(t.Context(), &appsv1.DeploymentList{}); err != nil {
		t.Errorf("listing native Deployments: %v", err)
	}
}

func eventually(t *testing.T, what string, condition func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return condition(ctx), nil
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}
