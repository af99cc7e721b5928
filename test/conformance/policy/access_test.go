// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/node/access"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

const managerUser = "system:pinnace:manager"

// keepAccess runs the controller with the manager's own rights, so that the test fails when these don't suffice.
func keepAccess(t *testing.T, config *rest.Config, scheme client.Client) {
	t.Helper()
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: managerUser, Groups: []string{"system:authenticated"}}
	mgr, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme.Scheme(), Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := mgr.GetFieldIndexer().IndexField(t.Context(), &pcorev1.Pod{}, kube.ByNode, kube.NodeIndex); err != nil {
		t.Fatal(err)
	}
	if err := access.NewReconciler(mgr.GetClient()).SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// secretive is a pod on a node that needs a Secret and a token of a service account.
func secretive(namespace, name, node string) *pcorev1.Pod {
	p := pod(namespace, name, node)
	p.Spec.ServiceAccountName = name
	p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}}
	return p
}

// TestStolenAgentCredential shows what the credential of one node's agent is worth: what the pods of that node refer to.
func TestStolenAgentCredential(t *testing.T) {
	e := start(t)
	admin, _ := as(t, e.Config, "")
	keepAccess(t, e.Config, admin)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "access-"}}
	if err := admin.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns.Name, Name: name} }
	for node, name := range map[string]string{"thief": "mine", "victim": "theirs"} {
		for _, obj := range []client.Object{
			&pcorev1.Secret{ObjectMeta: meta(name)}, &corev1.Secret{ObjectMeta: meta(name)}, &corev1.ServiceAccount{ObjectMeta: meta(name)},
			secretive(ns.Name, name, node),
		} {
			if err := admin.Create(t.Context(), obj); err != nil {
				t.Fatal(err)
			}
		}
	}
	thief, _ := as(t, e.Config, "system:pinnace:node:thief", "system:pinnace:nodes")
	token := func(account string) error {
		return thief.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: meta(account)}, &authenticationv1.TokenRequest{})
	}
	readAll := func(name string) error {
		key := client.ObjectKey{Namespace: ns.Name, Name: name}
		return errors.Join(thief.Get(t.Context(), key, &pcorev1.Secret{}), thief.Get(t.Context(), key, &corev1.Secret{}), token(name))
	}
	eventually(t, func() error { return readAll("mine") })

	// The pull secrets of an account count, as soon as it has any.
	hub := &corev1.Secret{ObjectMeta: meta("hub")}
	if err := admin.Create(t.Context(), hub); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: meta("mine"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "hub"}}}
	if err := admin.Update(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		return errors.Join(thief.Get(t.Context(), client.ObjectKeyFromObject(account), &corev1.ServiceAccount{}), thief.Get(t.Context(), client.ObjectKeyFromObject(hub), &corev1.Secret{}))
	})

	forbidden := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
	theirs := client.ObjectKey{Namespace: ns.Name, Name: "theirs"}
	forbidden("reading another node's Secret", thief.Get(t.Context(), theirs, &pcorev1.Secret{}))
	forbidden("reading another node's native Secret", thief.Get(t.Context(), theirs, &corev1.Secret{}))
	forbidden("listing service accounts", thief.List(t.Context(), &corev1.ServiceAccountList{}, client.InNamespace(ns.Name)))
	forbidden("listing Secrets", thief.List(t.Context(), &pcorev1.SecretList{}, client.InNamespace(ns.Name)))
	forbidden("a token of another node's account", token("theirs"))
	free := pod(ns.Name, "free", "")
	if err := admin.Create(t.Context(), free); err != nil {
		t.Fatal(err)
	}
	bound := free.DeepCopy()
	bound.Spec.NodeName = "thief"
	forbidden("binding a pod", thief.Patch(t.Context(), bound, client.MergeFrom(free)))
	forbidden("another node", thief.Create(t.Context(), &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "victim"}}))
	role := &rbacv1.Role{ObjectMeta: meta("pinnace:node:thief")}
	forbidden("its own role", thief.Update(t.Context(), role))

	if err := admin.Delete(t.Context(), pod(ns.Name, "mine", "")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := thief.Get(t.Context(), client.ObjectKey{Namespace: ns.Name, Name: "mine"}, &pcorev1.Secret{}); !apierrors.IsForbidden(err) {
			return errors.Join(errors.New("after the pod's end its Secret should not be readable"), err)
		}
		return nil
	})
}

// TestManagerGrantsNothingElse shows that the verbs escalate and bind are worth no more than what the agents need.
func TestManagerGrantsNothingElse(t *testing.T) {
	e := start(t)
	manager, _ := as(t, e.Config, managerUser)
	const name = "pinnace:node:a"
	role := func(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Rules: rules}
	}
	binding := func(to, user string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: to},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		}
	}
	get := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}}
	list, pods := *get.DeepCopy(), *get.DeepCopy()
	list.Verbs, list.ResourceNames = []string{"get", "list"}, []string{"a"}
	pods.Resources, pods.ResourceNames = []string{"pods"}, []string{"a"}
	for what, c := range map[string]struct {
		obj  client.Object
		want string
	}{
		"a role of another name":    {role("admin"), "may keep only roles named"},
		"a rule without names":      {role(name, get), "each by its name"},
		"another verb":              {role(name, list), "each by its name"},
		"another resource":          {role(name, pods), "each by its name"},
		"another role":              {binding("admin", "system:pinnace:node:a"), "to nobody else"},
		"another agent":             {binding(name, "system:pinnace:node:b"), "to nobody else"},
		"somebody who is no agent":  {binding(name, "eve"), "to nobody else"},
		"a user of the prefix only": {binding(name, "system:pinnace:node:"), "to nobody else"},
	} {
		t.Run(what, func(t *testing.T) {
			eventually(t, func() error {
				return refused(manager.Create(t.Context(), c.obj.DeepCopyObject().(client.Object)), c.want)
			})
		})
	}
}
