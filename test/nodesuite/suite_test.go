// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
)

// patience is how long a condition is waited for: most come within seconds, but machines of CI may be busy.
const patience = 90 * time.Second

const ready = "is.Ready == 'True'"

type containerStatus = corev1.ContainerStatus

// outcomes of the cases, told at the end.
type outcomes struct {
	mu              sync.Mutex
	held            int
	failed, skipped []string
	known           []string
}

// notYet are the cases that are known to fail, with the reason.
func notYet(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("testdata/not-yet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	if err := yaml.UnmarshalStrict(data, &out); err != nil {
		t.Fatalf("testdata/not-yet.yaml: %v", err)
	}
	return out
}

// TestCases reads all tables without a machine: each expression is one, and there are as many cases as was promised.
func TestCases(t *testing.T) {
	cases := loadCases(t, "registry")
	e, err := newExpressions(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if _, err := makePod(c.withHost(t, "/host"), "namespace"); err != nil {
			t.Errorf("%s: %v", c.id(), err)
		}
		for _, s := range c.Steps {
			for _, text := range append([]string{s.Until, s.Stays}, s.Holds...) {
				if text == "" {
					continue
				}
				if _, issues := e.env.Compile(text); issues.Err() != nil {
					t.Errorf("%s: %s: %v", c.id(), text, issues.Err())
				}
			}
		}
	}
	if len(cases) < 120 {
		t.Errorf("there are %d cases; 120 were promised", len(cases))
	}
	t.Logf("%d cases", len(cases))
}

// TestNodeSuite runs all cases side by side on one machine, and then what disturbs the machine one after the other.
func TestNodeSuite(t *testing.T) {
	loadCases(t, "registry") // a mistake in a table is told before anything starts
	w := newWorld(t)
	cases, known, sum := loadCases(t, w.registry.host), notYet(t), &outcomes{}
	began := time.Now()
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.id(), func(t *testing.T) {
				t.Parallel()
				if why := w.lacks(c.Needs); why != "" {
					sum.add(&sum.skipped, c.id()+": "+why)
					t.Skip(why)
				}
				sum.judge(t, c.id(), known[c.id()], w.do(t, c))
			})
		}
	})
	t.Run("disturbances", func(t *testing.T) {
		for _, d := range disturbances {
			t.Run(d.name, func(t *testing.T) { sum.judge(t, "disturbance: "+d.name, known["disturbance: "+d.name], d.run(t, w)) })
		}
	})
	disturbed := func(id string) bool {
		for _, d := range disturbances {
			if id == "disturbance: "+d.name {
				return true
			}
		}
		return false
	}
	for id := range known {
		if !slices.ContainsFunc(cases, func(c testCase) bool { return c.id() == id }) && !disturbed(id) {
			t.Errorf("testdata/not-yet.yaml lists %q, which is no case: remove it", id)
		}
	}
	sum.tell(len(cases)+len(disturbances), time.Since(began))
}

func (o *outcomes) add(list *[]string, entry string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*list = append(*list, entry)
}

// judge compares an outcome with what is known.
func (o *outcomes) judge(t *testing.T, id, known string, err error) {
	switch {
	case err != nil && known != "":
		o.add(&o.known, id+": "+known)
		t.Logf("known: %s; it fails with: %v", known, err)
	case err != nil:
		o.add(&o.failed, fmt.Sprintf("%s: %.1000s", id, err))
		t.Error(err)
	case known != "":
		o.add(&o.failed, id)
		t.Errorf("it holds now: remove it from testdata/not-yet.yaml")
	default:
		o.mu.Lock()
		o.held++
		o.mu.Unlock()
	}
}

func (o *outcomes) tell(all int, took time.Duration) {
	for _, part := range []struct {
		what    string
		entries []string
	}{{"not yet", o.known}, {"skipped", o.skipped}, {"FAILED", o.failed}} {
		slices.Sort(part.entries)
		for _, e := range part.entries {
			fmt.Fprintf(progress, "node suite: %s: %s\n", part.what, e)
		}
	}
	fmt.Fprintf(progress, "node suite: %d of %d cases hold; %d not yet, %d skipped, %d failed; %s\n",
		o.held, all, len(o.known), len(o.skipped), len(o.failed), took.Round(time.Second))
}

// caseRun is a case under way.
type caseRun struct {
	world *world
	host  string
	pod   *pcorev1.Pod
	// last is the pod as it was seen last; nil once it is gone.
	last *pcorev1.Pod
	is   *expressions
}

// do runs a case and returns what doesn't hold.
func (w *world) do(t *testing.T, c testCase) error {
	r, err := w.begin(t, &c)
	if r == nil || err != nil {
		return err
	}
	for i := range c.Steps {
		if err = r.step(t, &c.Steps[i]); err != nil {
			err = fmt.Errorf("step %d: %w", i+1, err)
			break
		}
	}
	return errors.Join(err, r.end(t, c))
}

// begin makes a case's folder, objects and pod; nil without an error for a pod that is refused as it should be.
func (w *world) begin(t *testing.T, c *testCase) (r *caseRun, err error) {
	r = &caseRun{world: w}
	namespace := w.env.Namespace(t)
	r.host = filepath.Join(w.dir, namespace)
	*c = c.withHost(t, r.host)
	c.prepareHost(t)
	if r.is, err = newExpressions(w, r); err != nil {
		return nil, err
	}
	for _, object := range c.Objects {
		if err := r.apply(t.Context(), namespace, object); err != nil {
			return nil, err
		}
	}
	if r.pod, err = makePod(*c, namespace); err != nil {
		return nil, err
	}
	err = w.client.Create(t.Context(), r.pod)
	if c.Refused != "" {
		if err == nil || !strings.Contains(err.Error(), c.Refused) {
			return nil, fmt.Errorf("the pod should be refused with %q, but the answer is: %w", c.Refused, err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("making the pod: %w", err)
	}
	r.last = r.pod
	return r, nil
}

func makePod(c testCase, namespace string) (*pcorev1.Pod, error) {
	object := map[string]any{"apiVersion": "core.pinnace.dev/v1", "kind": "Pod", "spec": c.complete()}
	pod := &pcorev1.Pod{}
	data, err := yaml.Marshal(object)
	if err == nil {
		err = yaml.UnmarshalStrict(data, pod)
	}
	if err == nil && c.Meta != nil {
		if data, err = yaml.Marshal(c.Meta); err == nil {
			err = yaml.UnmarshalStrict(data, &pod.ObjectMeta)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the case's pod: %w", err)
	}
	pod.Namespace = namespace
	if pod.Name == "" {
		pod.Name = "pod"
	}
	// Placement does so in the write that binds.
	pod.Finalizers = append(pod.Finalizers, agent.Finalizer)
	return pod, nil
}

func (r *caseRun) apply(ctx context.Context, namespace string, object map[string]any) error {
	o := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(object)}
	o.SetNamespace(namespace)
	err := r.world.client.Create(ctx, o)
	if apierrors.IsAlreadyExists(err) {
		old := o.DeepCopy()
		if err = r.world.client.Get(ctx, client.ObjectKeyFromObject(o), old); err == nil {
			o.SetResourceVersion(old.GetResourceVersion())
			err = r.world.client.Update(ctx, o)
		}
	}
	if err != nil {
		return fmt.Errorf("making %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

func (r *caseRun) step(t *testing.T, s *step) error {
	ctx, w := t.Context(), r.world
	for _, object := range s.Apply {
		if err := r.apply(ctx, r.pod.Namespace, object); err != nil {
			return err
		}
	}
	for _, object := range s.Remove {
		o := &unstructured.Unstructured{Object: object}
		o.SetNamespace(r.pod.Namespace)
		if err := w.client.Delete(ctx, o); err != nil {
			return err
		}
	}
	if s.Patch != nil {
		data, err := toJSON(s.Patch)
		if err != nil {
			return err
		}
		if err := w.client.Patch(ctx, r.pod.DeepCopy(), client.RawPatch("application/merge-patch+json", data)); err != nil {
			return fmt.Errorf("changing the pod: %w", err)
		}
	}
	if s.Touch != "" {
		if err := os.WriteFile(filepath.Join(r.host, s.Touch), nil, 0o666); err != nil {
			return err
		}
	}
	if s.Delete {
		if err := w.client.Delete(ctx, &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.pod.Namespace, Name: r.pod.Name}}); err != nil {
			return err
		}
	}
	if s.Until != "" {
		if err := r.until(ctx, s.Until, duration(t, s.Within, patience)); err != nil {
			return err
		}
	}
	var failures []error
	for _, text := range s.Holds {
		if ok, err := r.is.eval(text, r.last); err != nil || !ok {
			failures = append(failures, fmt.Errorf("this doesn't hold: %s%s", text, r.explain(err)))
		}
	}
	if s.Stays != "" && len(failures) == 0 {
		end := time.Now().Add(duration(t, s.For, 3*time.Second))
		for time.Now().Before(end) {
			if err := r.look(ctx); err != nil {
				return err
			}
			if ok, err := r.is.eval(s.Stays, r.last); err != nil || !ok {
				return fmt.Errorf("this didn't stay so: %s%s", s.Stays, r.explain(err))
			}
			time.Sleep(2 * pollEvery) // That nothing changes can't be waited for, only watched for a while.
		}
	}
	return errors.Join(failures...)
}

// look reads the pod. The one that is named alike and isn't ours counts as gone.
func (r *caseRun) look(ctx context.Context) error {
	got := &pcorev1.Pod{}
	err := r.world.client.Get(ctx, client.ObjectKeyFromObject(r.pod), got)
	switch {
	case apierrors.IsNotFound(err):
		r.last = nil
	case err != nil:
		return fmt.Errorf("reading the pod: %w", err)
	default:
		r.last, r.pod = got, got
	}
	return nil
}

func (r *caseRun) until(ctx context.Context, text string, within time.Duration) error {
	return poll(ctx, within, func(ctx context.Context) error {
		if err := r.look(ctx); err != nil {
			return fatal{err}
		}
		ok, err := r.is.eval(text, r.last)
		var bad *badExpression
		switch {
		case ok:
			return nil
		case errors.As(err, &bad):
			return fatal{bad}
		}
		return fmt.Errorf("%s%s", text, r.explain(err))
	})
}

// holds looks once.
func (r *caseRun) holds(ctx context.Context, text string) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	if ok, err := r.is.eval(text, r.last); err != nil || !ok {
		return fmt.Errorf("this doesn't hold: %s%s", text, r.explain(err))
	}
	return nil
}

// explain is why something doesn't hold, and what the pod is instead.
func (r *caseRun) explain(err error) string {
	why := ""
	if err != nil {
		why = " (" + err.Error() + ")"
	}
	if r.last == nil {
		return why + "; the pod is gone"
	}
	status := r.last.Status.DeepCopy()
	status.Columns = nil
	data, marshalled := yaml.Marshal(status)
	if marshalled != nil {
		return why
	}
	return why + "; the pod's status:\n" + string(data)
}

// end deletes the pod; nothing of it may be left.
func (r *caseRun) end(t *testing.T, c testCase) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	err := r.world.client.Delete(ctx, &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.pod.Namespace, Name: r.pod.Name}})
	if err = client.IgnoreNotFound(err); err != nil {
		return err
	}
	limit := 60 * time.Second
	if c.Slow {
		limit = 100 * time.Second
	}
	if err := r.until(ctx, "gone", limit); err != nil {
		return fmt.Errorf("deleting the pod: %w", err)
	}
	return r.world.nothingLeft(ctx, r.pod)
}

func toJSON(v any) ([]byte, error) {
	data, err := yaml.Marshal(v)
	if err != nil {
		return nil, err
	}
	return yaml.YAMLToJSON(data)
}
