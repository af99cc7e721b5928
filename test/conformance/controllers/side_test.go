// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// watched are the kinds whose objects make up the state of a namespace.
var watched = []string{
	"deployment", "replicaset", "replicationcontroller", "statefulset", "daemonset", "controllerrevision", "job", "cronjob",
	"poddisruptionbudget", "pod", "persistentvolumeclaim",
}

// side is one of the two: the native kinds with upstream's controllers, or Pinnace's with ours.
type side struct {
	name   string
	ours   bool
	client dynamic.Interface
	stores map[string]cache.Store

	mu sync.Mutex
	// scripts are the running ones, by namespace; they are told of each event.
	scripts map[string]*script
	kubelet *kubelet
}

func newSide(t *testing.T, config *rest.Config, name string, ours bool) *side {
	t.Helper()
	// Each side has connections of its own, so that neither waits for the other's watches.
	config = rest.CopyConfig(config)
	config.UserAgent = "oracle-" + name
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &side{name: name, ours: ours, client: client, stores: map[string]cache.Store{}, scripts: map[string]*script{}}
	ctx, cancel := context.WithCancel(context.Background())
	s.kubelet = newKubelet(s)
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	for _, kind := range watched {
		informer := factory.ForResource(s.resource(kind)).Informer()
		s.stores[kind] = informer.GetStore()
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.observe(kind, nil, o) },
			UpdateFunc: func(before, o any) { s.observe(kind, before, o) },
			DeleteFunc: func(o any) { s.observe(kind, o, nil) },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	s.kubelet.start(ctx)
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
		s.kubelet.stop()
	})
	return s
}

// resource is the side's resource for a kind as scripts call it.
func (s *side) resource(kind string) schema.GroupVersionResource {
	known, ok := resources[kind]
	if !ok {
		panic(failure{"there is no kind " + kind})
	}
	gvk := known.Upstream
	if s.ours {
		gvk = known.Pinnace
	}
	return gvk.GroupVersion().WithResource(known.Resource)
}

// in makes the side's object of a manifest.
func (s *side) in(m manifest) *unstructured.Unstructured {
	if s.ours {
		m = m.translated(m.gvk(), suffix.ToPinnace)
	}
	return &unstructured.Unstructured{Object: m}
}

// observe tells the kubelet and the namespace's script of an event, in the order in which the API server tells it.
func (s *side) observe(kind string, before, after any) {
	old, now := asObject(before), asObject(after)
	present := now
	if present == nil {
		present = old
	}
	if kind == "pod" && now != nil {
		s.kubelet.look(now)
	}
	s.mu.Lock()
	script := s.scripts[present.GetNamespace()]
	s.mu.Unlock()
	if script != nil {
		script.observe(kind, old, now)
	}
}

func asObject(o any) *unstructured.Unstructured {
	switch typed := o.(type) {
	case *unstructured.Unstructured:
		return typed
	case cache.DeletedFinalStateUnknown:
		return asObject(typed.Obj)
	}
	return nil
}

func (s *side) enter(namespace string, script *script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[namespace] = script
}

// version compares resource versions, which the API server promises to be numbers (since 1.35, KEP-5504).
func version(o *unstructured.Unstructured) uint64 {
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// limit bounds every wait of a script.
const limit = 90 * time.Second
