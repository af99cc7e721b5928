// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const namespace = "oracle"

var namespacesResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// clusterScoped are the resources without a namespace, the same on both sides.
var clusterScoped = map[string]bool{"nodes": true, "persistentvolumes": true, "storageclasses": true, "ingressclasses": true}

// server is an API server that serves both kinds.
type server struct{ client dynamic.Interface }

// startServer starts etcd and kube-apiserver with Pinnace's CRDs. envtest keeps
// the ServiceAccount admission plugin off, which would refuse every native pod
// as long as no controller makes the default account.
func startServer(ctx context.Context, t *testing.T) *server {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets, _ = filepath.Abs("../../../bin/assets")
	}
	environment := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     []string{"../../../config/crd/bases"},
		ErrorIfCRDPathMissing: os.Getenv("NATIVE_ONLY") == "",
		CRDInstallOptions:     envtest.CRDInstallOptions{MaxTime: time.Minute},
	}
	config, err := environment.Start()
	if err != nil {
		t.Fatalf("starting the API server from %s ('make assets' builds it): %v", assets, err)
	}
	t.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			t.Errorf("stopping the API server: %v", err)
		}
	})
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{client: client}
	if err := s.makeNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	return s
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
	if o.native, err = s.answer(ctx, native, in, one, func(m manifest) manifest { return m }); err == nil && os.Getenv("NATIVE_ONLY") == "" {
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
	existing, err := s.create(ctx, resource, in, renamed(translate(one.object), in), nil)
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

func (s *server) create(ctx context.Context, resource schema.GroupVersionResource, in string, object manifest, dryRun []string) (*unstructured.Unstructured, error) {
	created := &unstructured.Unstructured{Object: object.copy()}
	return s.into(resource, in, created).Create(ctx, created, metav1.CreateOptions{DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict})
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
