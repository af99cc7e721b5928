// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package lagging

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/pinnace-dev/pinnace/internal/kube"
)

// Cached returns an object as the cache shows it, nil if it doesn't. It must not be changed.
func Cached[T client.Object](w *World, name client.ObjectKey, kind T) (T, bool) {
	found, ok := w.cached[key{w.kindOf(kind), name}].(T)
	return found, ok
}

// get reads from the cache. Objects are copies, whatever the options say: what a planner changes in them must not help a later test.
func (w *World) get(_ context.Context, _ client.WithWatch, name client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	kind := w.kindOf(obj)
	found, ok := w.cached[key{kind, name}]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, name.Name)
	}
	if partial, ok := obj.(*metav1.PartialObjectMetadata); ok {
		meta.AsPartialObjectMetadata(found).ObjectMeta.DeepCopyInto(&partial.ObjectMeta)
		return nil
	}
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(found.DeepCopyObject()).Elem())
	return nil
}

// list reads from the cache, in the order of names, by namespace, labels and the index of controllers.
func (w *World) list(_ context.Context, _ client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
	kind := w.kindOf(list)
	kind.Kind = strings.TrimSuffix(kind.Kind, "List")
	_, partial := list.(*metav1.PartialObjectMetadataList)
	var o client.ListOptions
	o.ApplyOptions(options)
	if o.FieldSelector != nil {
		if _, ok := o.FieldSelector.RequiresExactMatch(kube.ByController); !ok {
			w.T.Fatalf("the cache has no index for %s", o.FieldSelector)
		}
	}
	byName := func(a, b key) int { return strings.Compare(a.String(), b.String()) }
	var items []runtime.Object
	for _, k := range slices.SortedFunc(maps.Keys(w.cached), byName) {
		obj := w.cached[k]
		switch {
		case k.kind != kind || o.Namespace != "" && o.Namespace != k.Namespace:
			continue
		case o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set(obj.GetLabels())):
			continue
		case o.FieldSelector != nil && !o.FieldSelector.Matches(fields.Set{kube.ByController: kube.ControllerIndex(obj)[0]}):
			continue
		case partial:
			items = append(items, meta.AsPartialObjectMetadata(obj).DeepCopy())
		default:
			items = append(items, obj.DeepCopyObject())
		}
	}
	if err := meta.SetList(list, items); err != nil {
		return fmt.Errorf("listing %ss from the cache: %w", kind.Kind, err)
	}
	return nil
}

// Manager is the world as kube.Configs meets it, which reads from the manager's cache itself and adds watches to a controller.
// Nobody is woken: the test says when the controller looks.
func (w *World) Manager() (cache.Cache, controller.Controller) {
	return configCache{reader: w.Client()}, unwatched{}
}

type configCache struct {
	cache.Cache
	reader client.Reader
}

func (c configCache) Get(ctx context.Context, name client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return c.reader.Get(ctx, name, obj, opts...)
}

func (c configCache) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.reader.List(ctx, list, opts...)
}

type unwatched struct{ controller.Controller }

func (unwatched) Watch(source.Source) error { return nil }
