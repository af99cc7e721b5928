// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/test/bench/usage"
)

const benchNamespace = "bench"

// rollouts makes Deployments and waits for them, as a client that watches.
type rollouts struct{ client client.WithWatch }

func newRollouts(config *rest.Config) (*rollouts, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, pappsv1.AddToScheme, pcorev1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &rollouts{c}, nil
}

func (r *rollouts) namespace(ctx context.Context) error {
	err := r.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: benchNamespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making the namespace: %w", err)
	}
	return nil
}

// quietly runs on a machine that has come to rest.
func (r *rollouts) quietly(ctx context.Context, image string, replicas int32) (time.Duration, error) {
	if err := usage.Quiet(ctx); err != nil {
		return 0, err
	}
	return r.run(ctx, image, replicas)
}

// run makes a Deployment, returns how long it took until all its pods were Ready, and removes it again.
func (r *rollouts) run(ctx context.Context, image string, replicas int32) (time.Duration, error) {
	d := deployment(image, replicas)
	list := &pappsv1.DeploymentList{}
	watch, err := r.client.Watch(ctx, list, client.InNamespace(benchNamespace))
	if err != nil {
		return 0, fmt.Errorf("watching Deployments: %w", err)
	}
	defer watch.Stop()
	started := time.Now()
	if err := r.client.Create(ctx, d); err != nil {
		return 0, fmt.Errorf("making the Deployment: %w", err)
	}
	var took time.Duration
	for took == 0 {
		select {
		case event, open := <-watch.ResultChan():
			if !open {
				return 0, fmt.Errorf("the watch broke")
			}
			if seen, ok := event.Object.(*pappsv1.Deployment); ok && seen.UID == d.UID && seen.Status.ReadyReplicas == replicas {
				took = time.Since(started)
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for %d Ready: %w", replicas, ctx.Err())
		}
	}
	return took, r.remove(ctx, d)
}

func (r *rollouts) remove(ctx context.Context, d *pappsv1.Deployment) error {
	if err := r.client.Delete(ctx, d, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		return fmt.Errorf("deleting the Deployment: %w", err)
	}
	var pods pcorev1.PodList
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := r.client.List(ctx, &pods, client.InNamespace(benchNamespace))
		return err == nil && len(pods.Items) == 0, err
	})
}

func deployment(image string, replicas int32) *pappsv1.Deployment {
	labels := map[string]string{"app": "bench"}
	grace := int64(1)
	token := false
	return &pappsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, GenerateName: "bench-"},
		Spec: pappsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Template: pcorev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: pcorev1.PodSpec{PodSpec: corev1.PodSpec{
					TerminationGracePeriodSeconds: &grace,
					AutomountServiceAccountToken:  &token,
					Containers:                    []corev1.Container{{Name: "server", Image: image}},
				}},
			},
		},
	}
}
