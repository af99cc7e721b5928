// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package lagging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// ErrCrash is the answer to each write of a controller that has died.
var ErrCrash = errors.New("the controller died")

// unlimited is the budget of a controller that lives.
const unlimited = 1 << 30

// Options are what differs from one room to the next. Schemes must be given.
type Options struct {
	// Schemes add the API groups.
	Schemes []func(*runtime.Scheme) error
	// Status are the kinds whose status is a subresource.
	Status []client.Object
	// Now is the API server's clock, which stamps what is created; without it nothing is stamped.
	Now func() time.Time
	// Before is called before each write. It may change what is created, as admission does. An error refuses the write.
	Before func(Write) error
	// After is called after each write that succeeded. An error takes its place, as if the answer had been lost.
	After func(Write) error
	// Once are the kinds of which a controller that lives asks for no creation and no deletion twice: it remembers what it did until
	// the cache shows it.
	Once []client.Object
	// Gone is called when the cache shows the end of an object, as the controller's watch handler is. owner is its controller's UID.
	Gone func(owner types.UID, obj client.Object)
}

// Write is one write that somebody asks the API server for.
type Write struct {
	Verb string
	// Object is what was sent. After a write it is the state that the object came to have, or its last one.
	Object client.Object
	// ByController is false for the writes of everybody else.
	ByController bool
	// Gone says, after a write, that the object isn't there any longer.
	Gone bool
}

// The verbs of writes.
const (
	Create = "create"
	Update = "update"
	Patch  = "patch"
	Delete = "delete"
	Status = "update status"
)

// World is an API server with a history, and a cache that shows the state after some prefix of it, as a watch does.
type World struct {
	T *rapid.T
	// Truth is the API server, for everybody but the controller.
	Truth client.Client

	options Options
	scheme  *runtime.Scheme
	server  client.WithWatch
	history map[schema.GroupVersionKind][]change
	writes  int
	// cached is the cache's content, seen how much of each kind's history it shows.
	cached map[key]client.Object
	seen   map[schema.GroupVersionKind]int
	// budget is how many writes the controller makes before it dies.
	budget int
	uids   int
	// asked are the creations and deletions that this controller knows to have succeeded, by verb and UID.
	asked map[string]bool
	// looking says that the controller is at work; broken is what it broke meanwhile.
	looking bool
	broken  string
	// behind are the kinds of which the cache didn't show all when the controller looked last.
	behind []schema.GroupVersionKind
	// mu lets a reconciler's parallel writers in one by one.
	mu sync.Mutex
}

type key struct {
	kind schema.GroupVersionKind
	types.NamespacedName
}

// change is a state of an object, or its end.
type change struct {
	key key
	obj client.Object
	end bool
}

// New makes a world with nothing in it.
func New(t *rapid.T, o Options) *World {
	w := &World{
		T: t, options: o, scheme: runtime.NewScheme(), budget: unlimited,
		asked: map[string]bool{}, history: map[schema.GroupVersionKind][]change{}, cached: map[key]client.Object{}, seen: map[schema.GroupVersionKind]int{},
	}
	for _, add := range o.Schemes {
		w.Must(add(w.scheme))
	}
	w.server = fake.NewClientBuilder().WithScheme(w.scheme).WithStatusSubresource(o.Status...).Build()
	w.Truth = interceptor.NewClient(w.server, w.writers(false))
	return w
}

// Client is the controller's: it reads from the cache and writes to the API server.
func (w *World) Client() client.Client {
	f := w.writers(true)
	f.Get, f.List = w.get, w.list
	return interceptor.NewClient(w.server, f)
}

// Live reads past the cache.
func (w *World) Live() client.Reader { return w.server }

// writers notes all writes in the history.
func (w *World) writers(byController bool) interceptor.Funcs {
	note := func(ctx context.Context, verb string, obj client.Object, do func() error) error {
		return w.write(ctx, Write{Verb: verb, Object: obj, ByController: byController}, do)
	}
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return note(ctx, Create, obj, func() error { return c.Create(ctx, obj, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return note(ctx, Update, obj, func() error { return c.Update(ctx, obj, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return note(ctx, Patch, obj, func() error { return w.patch(ctx, obj, patch, opts...) })
		},
		Delete: func(ctx context.Context, _ client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return note(ctx, Delete, obj, func() error { return w.delete(ctx, obj, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return note(ctx, Status, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	}
}

// patch answers like an API server when a test of a JSON patch fails; the fake client's error has no reason then.
func (w *World) patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	err := w.server.Patch(ctx, obj, patch, opts...)
	if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
		return apierrors.NewInvalid(w.kindOf(obj).GroupKind(), obj.GetName(), nil)
	}
	return err
}

// delete checks the precondition on the UID, which the fake client doesn't.
func (w *World) delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	var o client.DeleteOptions
	o.ApplyOptions(opts)
	if o.Preconditions != nil && o.Preconditions.UID != nil {
		there := w.make(w.kindOf(obj))
		if err := w.server.Get(ctx, client.ObjectKeyFromObject(obj), there); err != nil {
			return err
		}
		if uid := there.GetUID(); uid != *o.Preconditions.UID {
			return apierrors.NewConflict(schema.GroupResource{Resource: w.kindOf(obj).Kind}, obj.GetName(), fmt.Errorf("it is %s by now, not %s", uid, *o.Preconditions.UID))
		}
	}
	return w.server.Delete(ctx, obj, opts...)
}

// write carries a write out, and adds what came of it to the history.
func (w *World) write(ctx context.Context, wr Write, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wr.ByController {
		if w.budget <= 0 {
			return ErrCrash
		}
		w.budget--
	}
	k := key{w.kindOf(wr.Object), client.ObjectKeyFromObject(wr.Object)}
	if wr.Verb == Create {
		w.uids++
		wr.Object.SetUID(types.UID(fmt.Sprintf("uid-%03d", w.uids)))
		if w.options.Now != nil {
			wr.Object.SetCreationTimestamp(metav1.NewTime(w.options.Now()))
		}
	}
	if w.options.Before != nil {
		if err := w.options.Before(wr); err != nil {
			return err
		}
	}
	last := w.make(k.kind)
	_ = w.server.Get(ctx, k.NamespacedName, last) // of what isn't there yet, there is no last state
	if wr.ByController && w.asked[wr.Verb+" "+string(last.GetUID())] && w.once(k.kind) {
		w.Broken("the controller asks twice to %s %s %s", wr.Verb, k.kind.Kind, k.Name)
	}
	if err := do(); err != nil {
		return err
	}
	w.writes++
	state := w.make(k.kind)
	err := w.server.Get(ctx, k.NamespacedName, state)
	if wr.Gone = apierrors.IsNotFound(err); wr.Gone {
		state = last
	} else if err != nil {
		return err
	}
	wr.Object = state
	w.history[k.kind] = append(w.history[k.kind], change{key: k, obj: state, end: wr.Gone})
	if w.options.After != nil {
		if err := w.options.After(wr); err != nil {
			return err
		}
	}
	if wr.ByController && (wr.Verb == Create || wr.Verb == Delete) {
		w.asked[wr.Verb+" "+string(state.GetUID())] = true
	}
	return nil
}

// once says whether Options.Once names the kind.
func (w *World) once(kind schema.GroupVersionKind) bool {
	return slices.ContainsFunc(w.options.Once, func(obj client.Object) bool { return w.kindOf(obj) == kind })
}

func (w *World) kindOf(obj runtime.Object) schema.GroupVersionKind {
	kind, err := apiutil.GVKForObject(obj, w.scheme)
	w.Must(err)
	return kind
}

func (w *World) make(kind schema.GroupVersionKind) client.Object {
	made, err := w.scheme.New(kind)
	w.Must(err)
	obj, ok := made.(client.Object)
	if !ok {
		w.T.Fatalf("%T is no object", made)
	}
	return obj
}

// Must ends the test if there is an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Writes is how many writes there have been.
func (w *World) Writes() int { return w.writes }

// See lets the cache show the next n changes of a kind.
func (w *World) See(kind client.Object, n int) { w.see(w.kindOf(kind), n) }

// SeeAll lets the cache catch up.
func (w *World) SeeAll() {
	for _, kind := range w.lagging() {
		w.see(kind, len(w.history[kind]))
	}
}

// SeeSome lets the cache show up to most changes of each kind.
func (w *World) SeeSome(most int) {
	for _, kind := range w.lagging() {
		w.see(kind, rapid.IntRange(0, most).Draw(w.T, "changes seen of "+kind.Kind))
	}
}

// UpToDate says whether the cache shows all of a kind.
func (w *World) UpToDate(kind client.Object) bool {
	k := w.kindOf(kind)
	return w.seen[k] == len(w.history[k])
}

// lagging are the kinds of which the cache doesn't show all, in an order that is always the same.
func (w *World) lagging() []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	for kind, history := range w.history {
		if w.seen[kind] < len(history) {
			out = append(out, kind)
		}
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (w *World) see(kind schema.GroupVersionKind, n int) {
	for ; n > 0 && w.seen[kind] < len(w.history[kind]); n-- {
		c := w.history[kind][w.seen[kind]]
		w.seen[kind]++
		if !c.end {
			w.cached[c.key] = c.obj
			continue
		}
		delete(w.cached, c.key)
		if ref := metav1.GetControllerOf(c.obj); ref != nil && w.options.Gone != nil {
			w.options.Gone(ref.UID, c.obj)
		}
	}
}

// Broken ends the test because a write broke what must hold; during a look at its end, since it may be one of several that write at a
// time. It is for Options.Before and Options.After.
func (w *World) Broken(format string, args ...any) {
	w.T.Helper()
	switch {
	case !w.looking:
		w.T.Fatalf(format, args...)
	case w.broken == "":
		w.broken = fmt.Sprintf(format, args...)
	}
}

// Reconcile lets the controller look once. Errors other than its own death end the test, unless one of the functions expects them.
func (w *World) Reconcile(r reconcile.Reconciler, name types.NamespacedName, expected ...func(error) bool) {
	w.T.Helper()
	w.looking, w.behind = true, w.lagging()
	_, err := r.Reconcile(context.Background(), reconcile.Request{NamespacedName: name})
	if w.looking = false; w.broken != "" {
		w.T.Fatal(w.broken)
	}
	if err == nil || errors.Is(err, ErrCrash) {
		return
	}
	for _, is := range expected {
		if is(err) {
			return
		}
	}
	w.T.Fatalf("reconciling: %v", err)
}

// Crash lets the controller die after at most that many of the writes that look makes it do, and another one start.
func (w *World) Crash(most int, look, restart func()) {
	w.budget = rapid.IntRange(0, most).Draw(w.T, "writes before the crash")
	look()
	w.budget = unlimited
	clear(w.asked)
	restart()
}

// Get returns an object as the API server has it.
func Get[T client.Object](w *World, name types.NamespacedName, into T) T {
	w.T.Helper()
	w.Must(w.server.Get(context.Background(), name, into))
	return into
}

// Items are all objects of a list's kind as the API server has them, in the order of their names.
func Items[T client.Object](w *World, list client.ObjectList) []T {
	w.T.Helper()
	w.Must(w.server.List(context.Background(), list))
	var out []T
	w.Must(meta.EachListItem(list, func(obj runtime.Object) error {
		item, ok := obj.(T)
		if !ok {
			return fmt.Errorf("a %T holds a %T", list, obj)
		}
		out = append(out, item)
		return nil
	}))
	slices.SortFunc(out, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// Pods are all pods as the API server has them, in the order of their names.
func (w *World) Pods() []*pcorev1.Pod { return Items[*pcorev1.Pod](w, &pcorev1.PodList{}) }

// Pick draws one of a list that isn't empty.
func Pick[T any](w *World, what string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(w.T, what)]
}
