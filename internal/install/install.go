// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/pinnace-dev/pinnace/config"
)

const (
	// FieldManager owns what is installed.
	FieldManager = "pinnace"
	// HashAnnotation tells what an object was installed from; an equal one isn't applied again.
	HashAnnotation = "pinnace.dev/installed-from"

	partOf = "app.kubernetes.io/part-of=pinnace"

	// atOnce bounds the requests that run at the same time: more only queue in the API server.
	atOnce = 8
	// pause is how often it is looked whether a kind is served.
	pause = 25 * time.Millisecond
)

// Options say what to install beside the kinds, roles and policies.
type Options struct {
	// Simulator lets the process of all simulated nodes act for each of them.
	Simulator bool
	// Force applies everything, also what is there unchanged: it takes back what somebody edited.
	Force bool
	// Progress is told each object that is applied; nil is silent. It is called by several goroutines at once.
	Progress func(object string)
}

// Install applies the kinds, roles and policies server-side and waits until the API server serves every kind. What
// carries the annotation of an equal installation is left as it is, so that a second call costs one list a
// kind of object. It may be called again after any failure. Admission policies act a moment after they are stored.
func Install(ctx context.Context, restConfig *rest.Config, o Options) error {
	i, err := newInstaller(restConfig, o)
	if err != nil {
		return err
	}
	definitions, err := readCRDs(config.Files)
	if err != nil {
		return err
	}
	folders := []string{"default", "rbac", "policy"}
	if o.Simulator {
		folders = append(folders, "simulator")
	}
	var others []manifest
	for _, folder := range folders {
		list, err := readFolder(config.Files, folder)
		if err != nil {
			return err
		}
		others = append(others, list...)
	}
	return i.install(ctx, definitions, others)
}

type installer struct {
	options  Options
	objects  dynamic.Interface
	metadata metadata.Interface
	plain    rest.Interface
}

func newInstaller(restConfig *rest.Config, o Options) (*installer, error) {
	fast := rest.CopyConfig(restConfig)
	fast.QPS = -1 // The API server's own fairness is limit enough for some fifty requests.
	// What is tried out here is our own, and warned of by our own policies.
	fast.WarningHandler = rest.NoWarnings{}
	objects, err := dynamic.NewForConfig(fast)
	if err != nil {
		return nil, fmt.Errorf("making the installer's client: %w", err)
	}
	meta, err := metadata.NewForConfig(fast)
	if err != nil {
		return nil, fmt.Errorf("making the installer's client: %w", err)
	}
	plain, err := rest.UnversionedRESTClientFor(unversioned(fast))
	if err != nil {
		return nil, fmt.Errorf("making the installer's client: %w", err)
	}
	return &installer{options: o, objects: objects, metadata: meta, plain: plain}, nil
}

func unversioned(restConfig *rest.Config) *rest.Config {
	c := rest.CopyConfig(restConfig)
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	c.GroupVersion = &schema.GroupVersion{}
	return c
}

// install applies namespaces first, since other objects stand in them, and then everything at once.
func (i *installer) install(ctx context.Context, definitions, others []manifest) error {
	there, err := i.installed(ctx, append(definitions[:len(definitions):len(definitions)], others...))
	if err != nil {
		return err
	}
	var first, second []manifest
	for _, m := range others {
		if m.resource.Resource == "namespaces" {
			first = append(first, m)
		} else {
			second = append(second, m)
		}
	}
	if err := i.applyAll(ctx, first, there); err != nil {
		return err
	}
	if err := i.applyAll(ctx, append(definitions[:len(definitions):len(definitions)], second...), there); err != nil {
		return err
	}
	if err := i.awaitServed(ctx, definitions); err != nil {
		return err
	}
	if !slices.ContainsFunc(append(definitions[:len(definitions):len(definitions)], others...), func(m manifest) bool { return !m.in(there) }) {
		return nil // A restart mustn't wait for what only the first objects of users need.
	}
	return i.awaitDefaults(ctx)
}

type key struct {
	resource        schema.GroupVersionResource
	namespace, name string
}

// installed returns the hashes of what is there.
func (i *installer) installed(ctx context.Context, manifests []manifest) (map[key]string, error) {
	hashes := map[key]string{}
	if i.options.Force {
		return hashes, nil
	}
	kinds := map[schema.GroupVersionResource]bool{}
	for _, m := range manifests {
		kinds[m.resource] = true
	}
	found := make(chan map[key]string, len(kinds))
	group, ctx := errgroup.WithContext(ctx)
	for resource := range kinds {
		group.Go(func() error {
			list, err := i.metadata.Resource(resource).List(ctx, metav1.ListOptions{LabelSelector: partOf})
			if err != nil {
				return fmt.Errorf("listing the installed %s: %w", resource.Resource, err)
			}
			part := map[key]string{}
			for _, object := range list.Items {
				part[key{resource, object.Namespace, object.Name}] = object.Annotations[HashAnnotation]
			}
			found <- part
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	close(found)
	for part := range found {
		for k, hash := range part {
			hashes[k] = hash
		}
	}
	return hashes, nil
}

// in tells whether an equal installation of the manifest is there.
func (m manifest) in(there map[key]string) bool {
	return there[key{m.resource, m.namespace, m.name}] == m.hash
}

func (i *installer) applyAll(ctx context.Context, manifests []manifest, there map[key]string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, m := range manifests {
		if m.in(there) {
			continue
		}
		group.Go(func() error { return i.apply(ctx, m) })
	}
	return group.Wait()
}

func (i *installer) apply(ctx context.Context, m manifest) error {
	var object unstructured.Unstructured
	if err := yaml.Unmarshal(m.raw, &object.Object); err != nil {
		return fmt.Errorf("reading the manifest of %s %s: %w", m.resource.Resource, m.name, err)
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[HashAnnotation] = m.hash
	object.SetAnnotations(annotations)
	body, err := json.Marshal(object.Object)
	if err != nil {
		return fmt.Errorf("encoding %s %s: %w", m.resource.Resource, m.name, err)
	}
	force := true
	_, err = i.objects.Resource(m.resource).Namespace(m.namespace).Patch(ctx, m.name, types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: FieldManager, Force: &force})
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", m.resource.Resource, m.name, err)
	}
	if i.options.Progress != nil {
		i.options.Progress(m.resource.Resource + " " + m.name)
	}
	return nil
}

// awaitServed waits until discovery lists every kind, which is when requests for it are answered.
func (i *installer) awaitServed(ctx context.Context, definitions []manifest) error {
	wanted := map[string][]string{}
	for _, m := range definitions {
		plural, group, _ := strings.Cut(m.name, ".")
		wanted[group] = append(wanted[group], plural)
	}
	group, ctx := errgroup.WithContext(ctx)
	for name, plurals := range wanted {
		group.Go(func() error { return i.awaitGroup(ctx, name, plurals) })
	}
	return group.Wait()
}

func (i *installer) awaitGroup(ctx context.Context, name string, plurals []string) error {
	var missing []string
	var last error
	err := wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		missing, last = i.missing(ctx, name, plurals)
		return last == nil && len(missing) == 0, nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("waiting for %s to be served; still missing: %s: %w", name, strings.Join(missing, ", "), err), last)
	}
	return nil
}

// missing asks discovery which kinds of a group aren't served yet.
func (i *installer) missing(ctx context.Context, name string, plurals []string) ([]string, error) {
	raw, err := i.plain.Get().AbsPath("/apis", name).Do(ctx).Raw()
	if err != nil {
		return plurals, err
	}
	var served metav1.APIGroup
	if err := json.Unmarshal(raw, &served); err != nil {
		return plurals, fmt.Errorf("reading the discovery of %s: %w", name, err)
	}
	resources := map[string]bool{}
	for _, version := range served.Versions {
		raw, err := i.plain.Get().AbsPath("/apis", version.GroupVersion).Do(ctx).Raw()
		if err != nil {
			return plurals, err
		}
		var list metav1.APIResourceList
		if err := json.Unmarshal(raw, &list); err != nil {
			return plurals, fmt.Errorf("reading the discovery of %s: %w", version.GroupVersion, err)
		}
		for _, resource := range list.APIResources {
			resources[resource.Name] = true
		}
	}
	var missing []string
	for _, plural := range plurals {
		if !resources[plural] {
			missing = append(missing, plural)
		}
	}
	return missing, nil
}
