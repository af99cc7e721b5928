// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// A mirror may be made and deleted by the agent alone, and only of its own node: the policy pinnace-agents.
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=create;delete

const (
	// staticEvery is how often the folder of static pods is looked at, and how often the pods are before there are events.
	staticEvery = 2 * time.Second
	// mirrorAgain is when to try again what the API server refused.
	mirrorAgain = 10 * time.Second
	// manifestMost bounds a manifest.
	manifestMost = 1 << 20
)

// manifest is a file of the folder as it was last read.
type manifest struct {
	modified time.Time
	size     int64
	pod      *pcorev1.Pod
}

// staticPods are the pods of one node that come from files.
type staticPods struct {
	files map[string]manifest
	byKey map[types.NamespacedName]*pcorev1.Pod
	// status is what was last told of each, by UID.
	status map[types.UID]*pcorev1.PodStatus
}

// LoadStatic reads the folders of static pods. It must be called before Start, which would take what runs of them for orphans.
func (r *Reconciler) LoadStatic(ctx context.Context) {
	r.mu.Lock()
	nodes := maps.Clone(r.nodes)
	r.mu.Unlock()
	for _, n := range nodes {
		changed := n.loadStatic(ctx)
		for _, key := range changed {
			r.noteStatic(key)
			if _, pod := r.staticPod(key); pod != nil {
				r.records.get(n, pod.UID, key, r.options.Now()) // Known from now on, so that nothing of it is tidied away.
			}
			r.wake(key)
		}
	}
}

// RunStatic runs the static pods until the context ends. It needs no API server: mirrors follow when there is one. It comes beside Start.
func (r *Reconciler) RunStatic(ctx context.Context) {
	r.mu.Lock()
	if !r.started.Load() {
		r.base = ctx
	}
	r.mu.Unlock()
	go func() {
		ticker := time.NewTicker(staticEvery)
		defer ticker.Stop()
		for {
			r.LoadStatic(ctx)
			if !r.started.Load() {
				r.wakeStatic() // Nobody else watches the runtime yet.
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				r.staticQueue.ShutDown()
				return
			}
		}
	}()
	for {
		req, over := r.staticQueue.Get()
		if over {
			return
		}
		result, err := r.lookAtStatic(ctx, req)
		switch {
		case err != nil && ctx.Err() == nil:
			logf.FromContext(ctx).Error(err, "Looking at a static pod failed, trying again", "pod", klog.KRef(req.Namespace, req.Name))
			r.staticQueue.AddRateLimited(req)
		case result.RequeueAfter > 0:
			r.staticQueue.Forget(req)
			r.staticQueue.AddAfter(req, result.RequeueAfter)
		default:
			r.staticQueue.Forget(req)
		}
		r.staticQueue.Done(req)
	}
}

func newStaticQueue() workqueue.TypedRateLimitingInterface[reconcile.Request] {
	return workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
}

// noteStatic has the pods of that name looked at by RunStatic alone from now on: a pod has one worker.
func (r *Reconciler) noteStatic(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.staticKeys, key, true)
}

func (r *Reconciler) wakeStatic() {
	r.mu.Lock()
	keys := maps.Clone(r.staticKeys)
	r.mu.Unlock()
	for key := range keys {
		r.wake(key)
	}
}

// loadStatic reads what is new or changed in the folder and returns the names of pods that are new, changed or gone. A file that has
// become unreadable leaves the pod as it was.
func (n *nodeState) loadStatic(ctx context.Context) []types.NamespacedName {
	if n.StaticPodDir == "" {
		return nil
	}
	log := logf.FromContext(ctx)
	entries, err := os.ReadDir(n.StaticPodDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error(err, "Reading the folder of static pods failed, leaving them as they are", "folder", n.StaticPodDir)
		return nil
	}
	n.mu.Lock()
	before := n.static.files
	n.mu.Unlock()
	files := map[string]manifest{}
	byKey := map[types.NamespacedName]*pcorev1.Pod{}
	for _, entry := range entries { // By name, so that of two pods of one name always the same one is taken.
		name := entry.Name()
		if entry.IsDir() || strings.HasPrefix(name, ".") {
			continue
		}
		m, err := n.readManifest(name, before[name])
		if err != nil {
			log.Error(err, "A static pod is left as it was", "file", name)
		}
		files[name] = m
		if m.pod == nil {
			continue
		}
		key := client.ObjectKeyFromObject(m.pod)
		if byKey[key] != nil {
			if before[name].pod == nil {
				log.Info("Two files hold static pods of one name, taking the first", "pod", klog.KObj(m.pod), "file", name)
			}
			continue
		}
		byKey[key] = m.pod
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var changed []types.NamespacedName
	for key, pod := range byKey {
		if old := n.static.byKey[key]; old == nil || old.UID != pod.UID {
			changed = append(changed, key)
		}
	}
	for key := range n.static.byKey {
		if byKey[key] == nil {
			changed = append(changed, key)
		}
	}
	n.static.files, n.static.byKey = files, byKey
	kept := map[types.UID]*pcorev1.PodStatus{}
	for _, pod := range byKey {
		if status := n.static.status[pod.UID]; status != nil {
			kept[pod.UID] = status
		}
	}
	n.static.status = kept
	return changed
}

// readManifest reads a file unless it is as it was before. With an error the pod is the one from before.
func (n *nodeState) readManifest(name string, before manifest) (manifest, error) {
	path := filepath.Join(n.StaticPodDir, name)
	info, err := os.Stat(path)
	if err != nil {
		return before, fmt.Errorf("looking at the manifest: %w", err)
	}
	if !info.Mode().IsRegular() || info.ModTime().Equal(before.modified) && info.Size() == before.size {
		return before, nil
	}
	now := manifest{modified: info.ModTime(), size: info.Size(), pod: before.pod}
	if info.Size() > manifestMost {
		return now, fmt.Errorf("%s is larger than %d bytes", name, manifestMost)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return before, fmt.Errorf("reading the manifest: %w", err)
	}
	pod, err := parseStaticPod(data, name, n.Name)
	if err != nil {
		return now, err
	}
	now.pod = pod
	return now, nil
}

// staticPod finds the static pod of that name, and its node.
func (r *Reconciler) staticPod(key types.NamespacedName) (*nodeState, *pcorev1.Pod) {
	r.mu.Lock()
	nodes := maps.Clone(r.nodes)
	r.mu.Unlock()
	for _, n := range nodes {
		n.mu.Lock()
		pod := n.static.byKey[key]
		n.mu.Unlock()
		if pod != nil {
			return n, pod
		}
	}
	return nil, nil
}

// lookAtStatic brings what has the name of a static pod, or had, one step or many closer to what is wanted.
func (r *Reconciler) lookAtStatic(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var mirror *pcorev1.Pod
	if r.started.Load() {
		mirror = &pcorev1.Pod{}
		err := r.client.Get(ctx, req.NamespacedName, mirror)
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("reading the mirror: %w", err)
		}
		if err != nil {
			mirror = nil
		}
	}
	var wait waiter
	err := r.reconcileStatic(ctx, req.NamespacedName, mirror, &wait)
	return wait.result(r.options.Now()), err
}

// reconcileStatic runs a static pod, and has its mirror show it. Of pods of that name that aren't in a file any more, or not with that
// content, what runs is ended first. mirror is what the API server has of that name, or nil.
func (r *Reconciler) reconcileStatic(ctx context.Context, key types.NamespacedName, mirror *pcorev1.Pod, wait *waiter) error {
	node, static := r.staticPod(key)
	for _, rec := range r.records.named(key) {
		if static != nil && rec.uid == static.UID {
			continue
		}
		if err := r.endOrphan(ctx, rec, wait); err != nil {
			return err
		}
		if r.records.find(rec.uid) != nil {
			return nil // Its end brings the next look.
		}
	}
	if static == nil {
		if isMirror(mirror) {
			return r.deleteMirror(ctx, mirror)
		}
		return nil
	}
	rec := r.records.get(node, static.UID, key, r.options.Now())
	status, err := r.runStaticPod(ctx, rec, static, mirror, wait)
	if err != nil {
		return err
	}
	return r.reportMirror(ctx, node, static, mirror, status, wait)
}

func (r *Reconciler) runStaticPod(ctx context.Context, rec *record, static, mirror *pcorev1.Pod, wait *waiter) (*pcorev1.PodStatus, error) {
	node := rec.node
	pod := static.DeepCopy()
	node.mu.Lock()
	old := node.static.status[static.UID]
	node.mu.Unlock()
	if old == nil {
		old = mirrored(mirror, static)
	}
	if old != nil {
		pod.Status = *old.DeepCopy()
	}
	pod, err := r.allocate(ctx, rec, pod, wait)
	if err != nil {
		return nil, err
	}
	seen, p, err := r.converge(ctx, rec, pod)
	if err != nil {
		return nil, err
	}
	wait.until(p.wake)
	if !p.ending {
		if err := r.refresh(ctx, rec, pod, seen, wait); err != nil {
			return nil, err
		}
	}
	rec.mu.Lock()
	status := makeStatus(situation{pod: pod, seen: seen, mem: &rec.mem, now: r.options.Now()}, p, node.host(ctx))
	rec.mu.Unlock()
	node.mu.Lock()
	set(&node.static.status, static.UID, &status)
	node.mu.Unlock()
	rec.atRest.Store(p.ending && p.gone)
	return &status, nil
}

// reportMirror brings the mirror up to date. Without an API server there is none, and nobody minds.
func (r *Reconciler) reportMirror(ctx context.Context, node *nodeState, static, mirror *pcorev1.Pod, status *pcorev1.PodStatus, wait *waiter) error {
	switch {
	case !r.started.Load():
		return nil
	case mirror == nil:
		return r.createMirror(ctx, node, static, wait)
	case !isMirror(mirror):
		logf.FromContext(ctx).Info("A static pod has no mirror, since another pod has its name", "pod", klog.KObj(static))
		wait.until(r.options.Now().Add(mirrorAgain))
		return nil
	case !mirrors(mirror, static):
		return r.deleteMirror(ctx, mirror) // Its going brings the next look, which makes another.
	case sameStatus(status, &mirror.Status):
		return nil
	}
	changed := pcorev1.Pod{Status: *status}
	changed.Namespace, changed.Name, changed.UID, changed.ResourceVersion = mirror.Namespace, mirror.Name, mirror.UID, mirror.ResourceVersion
	err := r.client.Status().Update(ctx, &changed)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // The watch brings what is new, and with it another look.
	}
	if err != nil {
		return fmt.Errorf("writing the status of a static pod's mirror: %w", err)
	}
	return nil
}

func (r *Reconciler) createMirror(ctx context.Context, node *nodeState, static *pcorev1.Pod, wait *waiter) error {
	object := &pcorev1.Node{}
	err := r.client.Get(ctx, types.NamespacedName{Name: node.Name}, object)
	if err == nil {
		err = r.client.Create(ctx, makeMirror(static, object))
	}
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err):
		wait.until(r.options.Now().Add(time.Second)) // The cache is behind, or the pod is of another node.
	case apierrors.IsNotFound(err): // The node, or the namespace, is still to come.
		wait.until(r.options.Now().Add(time.Second))
	default:
		logf.FromContext(ctx).Info("The API server takes no mirror of a static pod, which runs all the same", "pod", klog.KObj(static), "reason", err.Error())
		wait.until(r.options.Now().Add(mirrorAgain))
	}
	return nil
}

func (r *Reconciler) deleteMirror(ctx context.Context, mirror *pcorev1.Pod) error {
	if mirror.DeletionTimestamp != nil {
		return nil // Somebody's finalizer holds it; the next look comes with its end.
	}
	err := r.client.Delete(ctx, mirror, client.Preconditions{UID: &mirror.UID})
	if apierrors.IsConflict(err) {
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the mirror of a static pod: %w", err)
	}
	return nil
}

// staticOnly has pods that are looked at by RunStatic passed on to it, and says whether that is so.
func (r *Reconciler) staticOnly(pod *pcorev1.Pod) bool {
	key := client.ObjectKeyFromObject(pod)
	r.mu.Lock()
	known := r.staticKeys[key]
	r.mu.Unlock()
	if !known && (!isMirror(pod) || r.node(pod.Spec.NodeName) == nil) {
		return false
	}
	r.noteStatic(key)
	r.wake(key)
	return true
}

// staticOf are copies of all static pods, with their last status.
func (r *Reconciler) staticOf() []*pcorev1.Pod {
	r.mu.Lock()
	nodes := maps.Clone(r.nodes)
	r.mu.Unlock()
	var out []*pcorev1.Pod
	for _, n := range nodes {
		n.mu.Lock()
		for _, pod := range n.static.byKey {
			pod = pod.DeepCopy()
			if status := n.static.status[pod.UID]; status != nil {
				pod.Status = *status.DeepCopy()
			}
			out = append(out, pod)
		}
		n.mu.Unlock()
	}
	return out
}

// isStaticRequest tells whether a name is for RunStatic.
func (r *Reconciler) isStaticRequest(req ctrl.Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.staticKeys[req.NamespacedName]
}
