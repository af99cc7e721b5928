// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// +kubebuilder:rbac:groups=apiregistration.k8s.io,resources=apiservices,verbs=create
// +kubebuilder:rbac:groups=apiregistration.k8s.io,resources=apiservices,resourceNames=v1.subresources.pinnace.dev;v1beta1.metrics.pinnace.dev,verbs=get;update
// +kubebuilder:rbac:groups="",resources=services,verbs=create,namespace=pinnace-system
// +kubebuilder:rbac:groups="",resources=services,resourceNames=pinnace-subresources,verbs=get;update,namespace=pinnace-system

// The native Service by which the API server reaches the manager.
const (
	ServiceNamespace = "pinnace-system"
	ServiceName      = "pinnace-subresources"
	// ServerName is the name that the server's certificate must have.
	ServerName = ServiceName + "." + ServiceNamespace + ".svc"
)

const (
	registerEvery = 5 * time.Minute
	registerRetry = 2 * time.Second
)

var apiServiceKind = schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"}

// Registration tells the API server where the aggregated API is, and keeps it told. It writes the APIServices and, outside a
// cluster, the Service; nobody else does.
type Registration struct {
	// Client writes, Reader reads from the API server.
	Client client.Client
	Reader client.Reader
	// ExternalName is the address at which the API server reaches this process, outside a cluster. Empty: the Service is
	// there, and selects the managers' pods.
	ExternalName string
	// Port of ExternalName; of the Service 443 otherwise.
	Port int32
	// Authority vouches for the server's certificate; PEM.
	Authority []byte
}

// NeedLeaderElection says that whoever serves may register: in a cluster all managers say the same.
func (g *Registration) NeedLeaderElection() bool { return false }

// Start registers until the context ends. The registration stays when the manager ends: it comes back to it.
func (g *Registration) Start(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := g.Register(ctx); err != nil && ctx.Err() == nil {
			logf.FromContext(ctx).Info("Registering the subresources failed, trying again", "reason", err.Error())
			timer.Reset(registerRetry)
			continue
		}
		timer.Reset(registerEvery)
	}
}

// Register brings the Service and the APIServices up to date, once.
func (g *Registration) Register(ctx context.Context) error {
	port := int64(443)
	if g.ExternalName != "" {
		port = int64(g.Port)
		if err := g.ensureService(ctx); err != nil {
			return err
		}
	}
	for _, group := range []schema.GroupVersion{{Group: Group, Version: Version}, {Group: MetricsGroup, Version: MetricsVersion}} {
		if err := g.ensureAPIService(ctx, group, port); err != nil {
			return err
		}
	}
	return nil
}

// ensureService makes a Service whose external name is an address: for one of that type kube-apiserver asks no DNS
// but takes the name as it stands, with the APIService's port.
func (g *Registration) ensureService(ctx context.Context) error {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ServiceNamespace, Name: ServiceName}}
	err := g.Reader.Get(ctx, client.ObjectKeyFromObject(service), service)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading the service %s: %w", ServiceName, err)
	}
	if err == nil && service.Spec.Type == corev1.ServiceTypeExternalName && service.Spec.ExternalName == g.ExternalName {
		return nil
	}
	missing := apierrors.IsNotFound(err)
	service.Labels = map[string]string{"app.kubernetes.io/part-of": "pinnace"}
	service.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: g.ExternalName}
	if missing {
		err = g.Client.Create(ctx, service)
	} else {
		err = g.Client.Update(ctx, service)
	}
	if err != nil {
		return fmt.Errorf("writing the service %s: %w", ServiceName, err)
	}
	return nil
}

func (g *Registration) ensureAPIService(ctx context.Context, group schema.GroupVersion, port int64) error {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(apiServiceKind)
	object.SetName(group.Version + "." + group.Group)
	err := g.Reader.Get(ctx, client.ObjectKeyFromObject(object), object)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading the APIService %s: %w", object.GetName(), err)
	}
	spec := map[string]any{
		"group": group.Group, "version": group.Version,
		// As for the groups of CRDs: behind all of upstream's.
		"groupPriorityMinimum": int64(1000), "versionPriority": int64(100),
		"service":  map[string]any{"namespace": ServiceNamespace, "name": ServiceName, "port": port},
		"caBundle": base64.StdEncoding.EncodeToString(g.Authority),
	}
	if err == nil && equality.Semantic.DeepEqual(object.Object["spec"], any(spec)) {
		return nil
	}
	object.Object["spec"] = spec
	object.SetLabels(map[string]string{"app.kubernetes.io/part-of": "pinnace"})
	if apierrors.IsNotFound(err) {
		err = g.Client.Create(ctx, object)
	} else {
		err = g.Client.Update(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("writing the APIService %s: %w", object.GetName(), err)
	}
	return nil
}
