// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// record is what the agent keeps of one pod (by UID) between two looks. A reconcile has its pod for itself; jobs and probes
// come in from beside, so mem and pulled are behind the lock.
type record struct {
	uid  types.UID
	key  types.NamespacedName
	node *nodeState
	// firstSeen is when this agent first saw the pod; references read before that are not used.
	firstSeen time.Time

	// atRest says that the pod has ended, whether deleted, done or with its node, and that its status tells.
	atRest atomic.Bool

	mu  sync.Mutex
	mem memory
	// pulled has the image references by container name, from the end of the pull to the start.
	pulled map[string]string
	// found has, by container name, the images that were there at foundAt, when the sandbox was about to be made: a start soon after
	// takes them from here instead of asking the runtime again.
	found   map[string]*runtimeapi.Image
	foundAt time.Time
	probes  map[string]*containerProbes

	// written is the pod as the last status write left it, until the cache has caught up.
	written *pcorev1.Pod
	// writing says that a status write is under way, heard is the last version that the cache brought meanwhile.
	writing bool
	heard   string

	// The rest belongs to the reconcile alone.

	// mounts are the host paths of the volumes once they are there.
	mounts map[string]string
	// imageVolumes are the images of the pod's volumes that are on the node, by the volume's name.
	imageVolumes map[string]*runtimeapi.ImageSpec
	// refreshAt is when files from references are to be brought up to date.
	refreshAt time.Time
	// metaVersion is the resource version for which the files were last looked at.
	metaVersion string
	// tokens of service accounts by what was asked for.
	tokens map[string]podToken
	// final is the status that a deleted pod ended with, while its containers were still known.
	final *pcorev1.PodStatus
	// made is what the step under way has made in the runtime.
	made made
	// free gives back the place among the starts that this look has taken; nil without one.
	free func()
	// finished says that nothing of the pod is left on the node; released that our finalizer is off, too.
	finished, released bool
	// emptied says that an evicted pod's disk was given back.
	emptied bool
}

// records holds the records of a Reconciler by pod UID, and finds them by name.
type records struct {
	mu    sync.Mutex
	byUID map[types.UID]*record
	byKey map[types.NamespacedName][]*record
}

func newRecords() *records {
	return &records{byUID: map[types.UID]*record{}, byKey: map[types.NamespacedName][]*record{}}
}

// get returns the pod's record, made if need be.
func (r *records) get(node *nodeState, uid types.UID, key types.NamespacedName, now time.Time) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.byUID[uid]
	if rec == nil {
		rec = &record{uid: uid, key: key, node: node, firstSeen: now}
		rec.mem.withoutProbes = node.Simulated
		rec.mem.facts = node.facts
		r.byUID[uid] = rec
		r.byKey[key] = append(r.byKey[key], rec)
	}
	return rec
}

func (r *records) find(uid types.UID) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byUID[uid]
}

// named returns the records of that name, of which all but one are of pods that are gone.
func (r *records) named(key types.NamespacedName) []*record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*record(nil), r.byKey[key]...)
}

func (r *records) drop(rec *record) {
	rec.stopProbes()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byUID, rec.uid)
	list := r.byKey[rec.key]
	for i := range list {
		if list[i] == rec {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(r.byKey, rec.key)
	} else {
		r.byKey[rec.key] = list
	}
}

// set puts a value into a map that is made when first needed: most pods need none of them.
func set[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}

// failStart remembers why a container couldn't be started; delays double from first to most.
func (r *record) failStart(name, reason, message string, now time.Time, first, most time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delay := first
	if before, ok := r.mem.failed[name]; ok && before.delay > 0 {
		delay = min(2*before.delay, most)
	}
	set(&r.mem.failed, name, startFailure{reason: reason, message: message, retryAt: now.Add(delay), delay: delay})
}

// trim forgets what concerns containers that are gone. The lock is held.
func (r *record) trim(seen *observed) {
	there := make(map[string]bool, len(seen.containers))
	for _, c := range seen.containers {
		there[c.Id] = true
	}
	for id := range r.mem.hooks {
		if !there[id] {
			delete(r.mem.hooks, id)
		}
	}
	for id := range r.mem.probed {
		if !there[id] {
			delete(r.mem.probed, id)
		}
	}
	for id := range r.mem.stopReasons {
		if !there[id] {
			delete(r.mem.stopReasons, id)
		}
	}
	for id := range r.mem.resize.actuated {
		if !there[id] {
			delete(r.mem.resize.actuated, id)
		}
	}
	for id := range r.mem.resize.restarting {
		if !there[id] {
			delete(r.mem.resize.restarting, id)
		}
	}
	for id := range r.mem.messages {
		if !there[id] {
			delete(r.mem.messages, id)
		}
	}
}

// newest is the pod as the cache has it or as our own last write left it, whichever is newer.
func (r *record) newest(cached *pcorev1.Pod) *pcorev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written == nil {
		return cached
	}
	if order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, r.written.ResourceVersion); err != nil || order >= 0 {
		r.written = nil
		return cached
	}
	return r.written
}

// beginWrite keeps what the cache brings from asking for a look until endWrite: on a busy machine it brings our own write sooner than the
// API server's answer does.
func (r *record) beginWrite() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing, r.heard = true, ""
}

// endWrite takes the pod as it was written, nil after a failure. look says that the cache brought something else meanwhile.
func (r *record) endWrite(pod *pcorev1.Pod) (look bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	heard := r.heard
	r.written, r.writing, r.heard = pod, false, ""
	if pod == nil || heard != pod.ResourceVersion {
		return heard != ""
	}
	r.written = nil
	return false
}

func (r *record) forgetWritten() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = nil
}

// caughtUp says that the cache's change is our own last write, which needs no look, or is judged when the write under way has ended.
func (r *record) caughtUp(version string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writing {
		r.heard = version
		return true
	}
	if r.written == nil || r.written.ResourceVersion != version {
		return false
	}
	r.written = nil
	return true
}
