// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"context"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/pinnace-dev/pinnace/internal/install"
	"github.com/pinnace-dev/pinnace/test/env"
)

const namespace = "oracle"

var namespacesResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// clusterScoped are the resources without a namespace, the same on both sides.
var clusterScoped = map[string]bool{"nodes": true, "persistentvolumes": true, "storageclasses": true, "ingressclasses": true}

// server is an API server that serves both kinds.
type server struct{ client dynamic.Interface }

// startServer starts an API server with all that Pinnace installs on one. Its
// ServiceAccount admission plugin is off, which would refuse every native pod
// as long as no controller makes the default account.
func startServer(ctx context.Context, t *testing.T) *server {
	t.Helper()
	e := env.Start(t, env.WithoutPinnaceCRDs())
	if err := install.Install(ctx, e.Config, install.Options{}); err != nil {
		t.Fatalf("installing Pinnace's kinds: %v", err)
	}
	config := rest.CopyConfig(e.Config)
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{client: client}
	if err := s.makeNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	if err := s.awaitPolicies(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitPolicies returns when the admission policies act, which is a moment
// after they are stored. The API server reads them in the order in which they
// were written, so all act when two act that are written now: one that marks an
// object and one that refuses what is marked.
func (s *server) awaitPolicies(ctx context.Context) error {
	const name = "oracle-canary"
	group := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	match := map[string]any{"resourceRules": []any{map[string]any{
		"apiGroups": []any{"core.pinnace.dev"}, "apiVersions": []any{"*"}, "resources": []any{"configmaps"}, "operations": []any{"CREATE"},
	}}}
	condition := []any{map[string]any{"name": name, "expression": "object.metadata.?name.orValue('') == '" + name + "'"}}
	for _, canary := range []struct {
		kind, resource string
		spec           map[string]any
	}{
		{"MutatingAdmissionPolicy", "mutatingadmissionpolicies", map[string]any{
			"matchConstraints": match, "matchConditions": condition, "reinvocationPolicy": "Never",
			"mutations": []any{map[string]any{"patchType": "JSONPatch", "jsonPatch": map[string]any{
				"expression": "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'" + name + "': 'marked'}}]",
			}}},
		}},
		{"MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", map[string]any{"policyName": name}},
		{"ValidatingAdmissionPolicy", "validatingadmissionpolicies", map[string]any{
			"matchConstraints": match, "matchConditions": condition,
			"validations": []any{map[string]any{"expression": "!has(object.metadata.labels)", "message": name}},
		}},
		{"ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", map[string]any{"policyName": name, "validationActions": []any{"Deny"}}},
	} {
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": group.String(), "kind": canary.kind, "metadata": map[string]any{"name": name}, "spec": canary.spec,
		}}
		if _, err := s.client.Resource(group.WithResource(canary.resource)).Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("making the canary policy: %w", err)
		}
	}
	probe := manifest{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}}
	_, resource, _ := resources(probe.gvk())
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := s.create(ctx, resource, namespace, probe.pinnace(), []string{metav1.DryRunAll})
		return apierrors.IsInvalid(err), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the admission policies to act: %w", err)
	}
	return nil
}

func (s *server) makeNamespace(ctx context.Context, name string) error {
	made := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
	if _, err := s.client.Resource(namespacesResource).Create(ctx, made, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the namespace %s: %w", name, err)
	}
	return nil
}

// ask puts one case to both kinds. number tells the case from the others.
func (s *server) ask(ctx context.Context, one testCase, number int) outcome {
	o := outcome{one: one}
	native, pinnace, ok := resources(one.object.gvk())
	if !ok {
		o.fault = fmt.Sprintf("Pinnace has no kind for %s", one.object.gvk())
		return o
	}
	// What an update case really creates, such as a LimitRange, must not act on
	// the other cases, so it gets a namespace of its own.
	in, err := namespace, error(nil)
	if one.change != nil {
		in = fmt.Sprintf("%s-%d", namespace, number)
		err = s.makeNamespace(ctx, in)
	}
	if err != nil {
		o.fault = err.Error()
		return o
	}
	if o.native, err = s.answer(ctx, native, in, one, func(m manifest) manifest { return m }); err == nil {
		o.ours, err = s.answer(ctx, pinnace, in, one, manifest.pinnace)
	}
	if err != nil {
		o.fault = err.Error()
	}
	return o
}

// answer puts one case to one kind. An error says that the case couldn't be put.
func (s *server) answer(ctx context.Context, resource schema.GroupVersionResource, in string, one testCase, translate func(manifest) manifest) (answer, error) {
	dryRun := []string{metav1.DryRunAll}
	for _, object := range one.before {
		native, pinnace, _ := resources(object.gvk())
		to := native
		if translate(object).gvk() != object.gvk() {
			to = pinnace
		}
		if _, err := s.create(ctx, to, in, translate(object), nil); err != nil && !apierrors.IsAlreadyExists(err) {
			return answer{}, fmt.Errorf("creating what must exist before: %w", err)
		}
	}
	if one.change == nil {
		return answered(s.create(ctx, resource, in, translate(one.object), dryRun))
	}
	existing, err := s.create(ctx, resource, in, renamed(translate(one.object.copy()), in), nil)
	if err != nil {
		return answer{}, fmt.Errorf("creating the %s that the update starts from: %w", resource.GroupResource(), err)
	}
	into := s.into(resource, in, existing)
	if status, ok := one.object["status"]; ok {
		existing.Object["status"] = status
		if existing, err = into.UpdateStatus(ctx, existing, metav1.UpdateOptions{}); err != nil {
			return answer{}, fmt.Errorf("writing the status of the %s that the update starts from: %w", resource.GroupResource(), err)
		}
	}
	changed, err := one.change.apply(manifest(existing.Object).upstream())
	if err != nil {
		return answer{}, err
	}
	update := &unstructured.Unstructured{Object: translate(changed)}
	return answered(into.Update(ctx, update, metav1.UpdateOptions{DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict}))
}

func (s *server) create(ctx context.Context, resource schema.GroupVersionResource, in string, object manifest, dryRun []string) (created *unstructured.Unstructured, err error) {
	options := metav1.CreateOptions{DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict}
	// The API server can't apply a mutating policy to a kind before it has read
	// the kind's published schema, which it does every five seconds.
	waited := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		created = &unstructured.Unstructured{Object: object.copy()}
		created, err = s.into(resource, in, created).Create(ctx, created, options)
		return !apierrors.IsServiceUnavailable(err), nil
	})
	if waited != nil {
		return nil, fmt.Errorf("the API server isn't ready for %s after 30 seconds: %w", resource.GroupResource(), err)
	}
	return created, err
}

// into is the client for an object, which is moved into the given namespace:
// the corpus writes namespaces that don't exist here.
func (s *server) into(resource schema.GroupVersionResource, in string, object *unstructured.Unstructured) dynamic.ResourceInterface {
	if clusterScoped[resource.Resource] {
		return s.client.Resource(resource)
	}
	if metadata, ok := object.Object["metadata"].(map[string]any); ok && metadata["namespace"] != nil {
		object.SetNamespace(in)
	}
	return s.client.Resource(resource).Namespace(in)
}

// renamed makes the name of an object that is really created unique; several
// cases start from one base, and some kinds have no namespace to part them.
func renamed(object manifest, suffix string) manifest {
	if metadata, ok := object["metadata"].(map[string]any); ok {
		metadata["name"] = fmt.Sprintf("%v-%s", metadata["name"], suffix)
	}
	return object
}

// answered turns what the client returned into an answer. Only a refusal of the
// manifest is one: anything else means that the case couldn't be put.
func answered(object *unstructured.Unstructured, err error) (answer, error) {
	switch {
	case err == nil:
		return answer{verdict: accepted, object: manifest(object.Object).upstream()}, nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
		return answer{verdict: refused, sentence: sentenceOf(err)}, nil
	}
	return answer{}, err
}
