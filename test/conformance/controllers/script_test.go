// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// script is one run of a scenario on one side. Its methods are the scenario's vocabulary; they end the script by a panic
// with a failure, which the oracle turns into the scenario's result.
type script struct {
	side      *side
	ctx       context.Context
	namespace string

	// mu guards what events change.
	mu sync.Mutex
	// events counts what happened in the namespace; last is when.
	events int
	last   time.Time
	// living are the pods of the namespace as the watch last told them.
	living map[types.UID]*corev1.Pod
	// rules are the invariants that hold at present; broken is what was seen of them.
	rules  map[string]rule
	broken map[string]string
	// written is the least resource version that the side's stores must have reached, by kind/name.
	written map[string]uint64
	// deleted are the pods that the script has deleted, by kind/name: another may have the name by now.
	deleted map[string]types.UID
	// own are the names of pods that the script itself made.
	own []string
	// pool is the label of the nodes that the script's pods go to.
	pool string
	// anyNode says that a DaemonSet's pods may be at different stages on different nodes: which goes first is by chance.
	anyNode bool
	// step is what the script does now, for a failure's report.
	step string
}

// rule looks at the living pods after each event of a pod, and says what is wrong. The event's pod may be one that is gone.
type rule func(event event, pods []*corev1.Pod) string

// event is what happened to a pod: it came, changed or went.
type event struct {
	kind string
	pod  *corev1.Pod
}

const (
	came    = "came"
	changed = "changed"
	went    = "went"
)

func newScript(ctx context.Context, s *side, namespace string) *script {
	return &script{
		side: s, ctx: ctx, namespace: namespace, last: time.Now(),
		living: map[types.UID]*corev1.Pod{}, rules: map[string]rule{}, broken: map[string]string{}, written: map[string]uint64{},
		pool: commonPool,
	}
}

// observe takes an event in; the watches call it, each kind's in order.
func (s *script) observe(kind string, before, after *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events++
	s.last = time.Now()
	if kind != "pod" {
		return
	}
	e := event{kind: changed}
	if after == nil {
		e = event{went, asPod(before)}
		delete(s.living, e.pod.UID)
	} else {
		e.pod = asPod(after)
		if before == nil || before.GetUID() != after.GetUID() {
			e.kind = came
		}
		if before != nil && before.GetUID() != after.GetUID() {
			delete(s.living, before.GetUID())
		}
		s.living[e.pod.UID] = e.pod
	}
	pods := make([]*corev1.Pod, 0, len(s.living))
	for _, p := range s.living {
		pods = append(pods, p)
	}
	for name, r := range s.rules {
		if sentence := r(e, pods); sentence != "" && s.broken[name] == "" {
			s.broken[name] = fmt.Sprintf("%s (%s: pod %s %s)", sentence, s.step, e.pod.Name, e.kind)
		}
	}
}

// always holds the side to a rule from now on, until the function that it returns is called.
func (s *script) always(name string, r rule) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules[name] = r
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.rules, name)
	}
}

func (s *script) fail(format string, args ...any) {
	panic(failure{fmt.Sprintf("%s: %s", s.step, fmt.Sprintf(format, args...))})
}

func (s *script) begin(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step = fmt.Sprintf(format, args...)
}

// await waits until try returns nothing. Looking costs no request, so it looks often.
func (s *script) await(what string, try func() string) {
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(30 * time.Millisecond)
	defer ticker.Stop()
	for {
		sentence := try()
		if sentence == "" {
			return
		}
		if s.ctx.Err() != nil || time.Now().After(deadline) {
			s.fail("waiting until %s: %s", what, sentence)
		}
		<-ticker.C
	}
}

// part splits "deployment/web".
func part(ref string) (kind, name string) {
	kind, name, _ = strings.Cut(ref, "/")
	return kind, name
}

// wrote remembers a write, so that nobody looks at an older state.
func (s *script) wrote(kind string, o *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[kind+"/"+o.GetName()] = version(o)
}

// create makes an object.
func (s *script) create(m manifest) {
	kind := strings.ToLower(m.gvk().Kind)
	s.begin("create %s", kind)
	o := s.side.in(m)
	o.SetNamespace(s.namespace)
	confine(o.Object, s.pool)
	var made *unstructured.Unstructured
	s.retry("the API server takes it", func() (err error) {
		made, err = s.side.client.Resource(s.side.resource(kind)).Namespace(s.namespace).Create(s.ctx, o.DeepCopy(), metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		return err
	})
	s.wrote(kind, made)
	if kind == "pod" {
		s.own = append(s.own, made.GetName())
	}
}

// retry repeats a write that met a conflict, or an API server that isn't ready for the kind yet.
func (s *script) retry(what string, try func() error) {
	s.await(what, func() string {
		err := try()
		switch {
		case err == nil:
			return ""
		case apierrors.IsConflict(err), apierrors.IsServiceUnavailable(err), apierrors.IsTooManyRequests(err):
			return err.Error()
		}
		s.fail("%v", err)
		return ""
	})
}

func (s *script) send(ref string, patch types.PatchType, raw []byte, subresources ...string) {
	kind, name := part(ref)
	var made *unstructured.Unstructured
	s.retry("the patch is taken", func() (err error) {
		made, err = s.side.client.Resource(s.side.resource(kind)).Namespace(s.namespace).Patch(s.ctx, name, patch, raw, metav1.PatchOptions{}, subresources...)
		return err
	})
	if made.GetName() != "" && !slices.Contains(subresources, "scale") {
		s.wrote(kind, made)
	} else if n := version(made); n > 0 {
		s.mu.Lock()
		s.written[kind+"/"+name] = n
		s.mu.Unlock()
	}
}

// patch changes an object by a merge patch, written in YAML.
func (s *script) patch(ref, change string, subresources ...string) {
	s.begin("patch %s", ref)
	raw, err := yaml.YAMLToJSON([]byte(change))
	must(err)
	s.send(ref, types.MergePatchType, raw, subresources...)
}

// scale sets the size through the scale subresource, as kubectl does.
func (s *script) scale(ref string, replicas int) {
	s.begin("scale %s to %d", ref, replicas)
	s.send(ref, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), "scale")
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func (s *script) operate(ref string, ops ...operation) {
	raw, err := json.Marshal(ops)
	must(err)
	s.send(ref, types.JSONPatchType, raw)
}

// setImage rolls another image out.
func (s *script) setImage(ref, image string) {
	s.begin("set image of %s to %s", ref, image)
	s.operate(ref, operation{"replace", "/spec/template/spec/containers/0/image", image})
}

// delete deletes an object; how is the propagation policy.
func (s *script) delete(ref string, how metav1.DeletionPropagation) {
	s.begin("delete %s (%s)", ref, how)
	kind, name := part(ref)
	err := s.side.client.Resource(s.side.resource(kind)).Namespace(s.namespace).Delete(s.ctx, name, metav1.DeleteOptions{PropagationPolicy: &how})
	if err != nil && !apierrors.IsNotFound(err) {
		s.fail("%v", err)
	}
}

// deleteGone deletes an object in the background and waits until it isn't there any more.
func (s *script) deleteGone(ref string, how metav1.DeletionPropagation) {
	s.delete(ref, how)
	s.gone(ref)
}

// gone waits until an object isn't there any more.
func (s *script) gone(ref string) {
	s.begin("wait until %s is gone", ref)
	kind, name := part(ref)
	s.await(ref+" is gone", func() string {
		s.mu.Lock()
		uid, known := s.deleted[ref]
		s.mu.Unlock()
		if found, ok := s.find(kind, name); ok && (!known || found.GetUID() == uid) {
			return "it is still there"
		}
		return ""
	})
}

// find reads an object as the watch last told it; not one that is older than the script's last write of it.
func (s *script) find(kind, name string) (object, bool) {
	found, ok, err := s.side.stores[kind].GetByKey(s.namespace + "/" + name)
	must(err)
	if !ok {
		return object{}, false
	}
	return object{asObject(found)}, true
}

// get waits until the object is there, at least as new as the script's own last write.
func (s *script) get(ref string) object {
	kind, name := part(ref)
	var out object
	s.await(ref+" is there", func() string {
		found, ok := s.find(kind, name)
		s.mu.Lock()
		least := s.written[ref]
		s.mu.Unlock()
		if !ok || version(found.Unstructured) < least {
			return "it isn't"
		}
		out = found
		return ""
	})
	return out
}

// condition says what is missing to it; nothing when it holds.
type condition func(object) string

// wait waits until an object, which has seen the script's last write, satisfies all conditions.
func (s *script) wait(ref string, conditions ...condition) {
	s.begin("wait for %s", ref)
	kind, name := part(ref)
	s.await(ref+" is as expected", func() string {
		o, ok := s.find(kind, name)
		if !ok {
			return "it isn't there"
		}
		s.mu.Lock()
		least := s.written[ref]
		s.mu.Unlock()
		if version(o.Unstructured) < least {
			return "the watch is behind"
		}
		for _, c := range conditions {
			if sentence := c(o); sentence != "" {
				return sentence
			}
		}
		return ""
	})
}

// later waits until a pod that is made now is younger than those that are there, in the whole seconds of the API.
func (s *script) later() {
	s.begin("wait for the next second")
	s.await("a second has passed", func() string {
		for _, p := range s.pods() {
			if time.Since(p.CreationTimestamp.Time) < 2*time.Second {
				return p.Name + " is as young"
			}
		}
		return ""
	})
}

// nudge writes an annotation to an object, and takes it away, until a condition holds: for what a controller sees only when it
// looks at the object for another reason.
func (s *script) nudge(ref string, c condition) {
	kind, name := part(ref)
	s.await(ref+" is as expected", func() string {
		s.patch(ref, "metadata: {annotations: {oracle/nudge: 'yes'}}")
		s.patch(ref, "metadata: {annotations: {oracle/nudge: null}}")
		o, ok := s.find(kind, name)
		if !ok {
			return "it isn't there"
		}
		return c(o)
	})
}

// list returns the namespace's objects of a kind, by name.
func (s *script) list(kind string) []object {
	var out []object
	for _, o := range s.side.stores[kind].List() {
		if found := asObject(o); found.GetNamespace() == s.namespace {
			out = append(out, object{found})
		}
	}
	slices.SortFunc(out, func(a, b object) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// pods returns the living pods that satisfy all filters, in the order of their names.
func (s *script) pods(filters ...func(*corev1.Pod) bool) []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*corev1.Pod
	for _, p := range s.living {
		if !slices.ContainsFunc(filters, func(f func(*corev1.Pod) bool) bool { return !f(p) }) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// waitPods waits until exactly that many pods satisfy the filters, and returns them.
func (s *script) waitPods(n int, filters ...func(*corev1.Pod) bool) []*corev1.Pod {
	s.begin("wait for %d pods", n)
	var out []*corev1.Pod
	s.await(fmt.Sprintf("there are %d such pods", n), func() string {
		out = s.pods(filters...)
		if len(out) == n {
			return ""
		}
		return fmt.Sprintf("there are %d among %s", len(out), describe(s.pods()))
	})
	return out
}

func describe(pods []*corev1.Pod) string {
	var out []string
	for _, p := range pods {
		state := string(p.Status.Phase)
		if p.DeletionTimestamp != nil {
			state += ",deleted"
		}
		out = append(out, fmt.Sprintf("%s[%s %s]", p.Name, p.Spec.Containers[0].Image, state))
	}
	return strings.Join(out, " ")
}

// update changes pods' statuses, as their node would.
func (s *script) update(pods []*corev1.Pod, change func(*corev1.Pod)) {
	for _, p := range pods {
		s.retry("pod "+p.Name+" takes its status", func() error {
			o, err := s.side.client.Resource(s.side.resource("pod")).Namespace(s.namespace).Get(s.ctx, p.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			pod := asPod(o)
			change(pod)
			return s.side.kubelet.write(s.ctx, o, pod)
		})
	}
}

// exit ends pods with a code.
func (s *script) exit(code int32, pods ...*corev1.Pod) {
	s.begin("%d pods exit with %d", len(pods), code)
	s.update(pods, func(p *corev1.Pod) { finish(p, code) })
}

// ready makes running pods ready; unready does the contrary.
func (s *script) ready(pods ...*corev1.Pod) {
	s.begin("%d pods become ready", len(pods))
	s.update(pods, func(p *corev1.Pod) { setReady(p, true) })
}

func (s *script) unready(pods ...*corev1.Pod) {
	s.begin("%d pods become unready", len(pods))
	s.update(pods, func(p *corev1.Pod) { setReady(p, false) })
}

// deletePods deletes pods as a user does.
func (s *script) deletePods(pods ...*corev1.Pod) {
	for _, p := range pods {
		s.mu.Lock()
		if s.deleted == nil {
			s.deleted = map[string]types.UID{}
		}
		s.deleted["pod/"+p.Name] = p.UID
		s.mu.Unlock()
		s.delete("pod/"+p.Name, metav1.DeletePropagationBackground)
	}
}

// end lets deleted pods end that linger.
func (s *script) end(pods ...*corev1.Pod) {
	s.begin("%d pods end", len(pods))
	for _, p := range pods {
		s.retry("pod "+p.Name+" ends", func() error {
			o, err := s.side.client.Resource(s.side.resource("pod")).Namespace(s.namespace).Get(s.ctx, p.Name, metav1.GetOptions{})
			if err != nil {
				return ignoreGone(err)
			}
			if o.GetUID() != p.UID {
				return nil
			}
			return s.side.kubelet.end(s.ctx, o)
		})
	}
}

// label sets a pod's label; an empty value takes it away.
func (s *script) label(p *corev1.Pod, key, value string) {
	s.begin("label a pod %s=%s", key, value)
	var v any = value
	if value == "" {
		v = nil
	}
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: v}}})
	must(err)
	s.send("pod/"+p.Name, types.MergePatchType, raw)
}

// Filters of pods.

func of(app string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Labels["app"] == app }
}

func running(image string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == image }
}

func named(name string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Name == name }
}

func alive(p *corev1.Pod) bool { return p.DeletionTimestamp == nil }

func deleted(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }

func active(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && !isOver(p) }

func started(p *corev1.Pod) bool { return active(p) && len(p.Status.ContainerStatuses) > 0 }

func over(p *corev1.Pod) bool { return isOver(p) }

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func healthy(p *corev1.Pod) bool { return isReady(p) && alive(p) }

func index(n string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Labels["batch.kubernetes.io/job-completion-index"] == n }
}
