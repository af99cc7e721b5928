// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// Node is a node whose pods the Reconciler runs.
type Node struct {
	// Name is the Node object's name.
	Name string
	// Runtime runs its containers.
	Runtime runtime.Service
	// HostIPs are the node's addresses, the first one first, for status.hostIPs and pods with the host's network.
	HostIPs []string
	// Allocatable is what pods may have of the node together. It stands in for limits that aren't set in the downward API. Nil: unknown.
	Allocatable corev1.ResourceList
	// Capacity of the machine: its memory is the measure of oom_score_adj, and its sizes of huge pages are held to what pods ask for. Nil:
	// unknown.
	Capacity corev1.ResourceList

	// Volumes makes the pods' volumes and files below them. Nil, for a simulated node, makes none and keeps nothing on disk.
	Volumes *volume.Manager
	// LogDir holds the containers' logs, as upstream's /var/log/pods. Empty: no logs.
	LogDir string
	// CgroupRoot is the parent of the pods' cgroups, such as /pinnace. Empty: the runtime's default.
	CgroupRoot string
	// SandboxProfile is the path of the seccomp profile of the sandboxes' own processes, where the runtime sees it. Empty: the runtime's default.
	SandboxProfile string
	// ClusterDNS are the addresses of the cluster's DNS. Empty: pods get the node's own resolver.
	ClusterDNS []string
	// ClusterDomain is the DNS domain of the cluster; cluster.local when empty.
	ClusterDomain string
	// ResolvConf is the node's own resolver configuration; /etc/resolv.conf when empty.
	ResolvConf string

	// StaticPodDir holds manifests of pods that run here without an API server. Empty: none.
	StaticPodDir string
	// UnsafeSysctls are allowed beside upstream's safe ones; a name may end in "*".
	UnsafeSysctls []string

	// Simulated nodes count every probe as passed, run no hooks, and stop containers in place of a job.
	Simulated bool
	// Parallel bounds how many sandboxes and containers are started at once; 0: no bound. On two cores four is best.
	Parallel int
	// ParallelPulls bounds how many images are pulled at once; 0: five.
	ParallelPulls int
	// PullProgress tells how far the pulls are that began since then; false: not known. Nil: never known.
	PullProgress func(ctx context.Context, since time.Time) (PullProgress, bool)
	// Refuses asks an image's registry whether it wants another login than this one; an error: it couldn't be asked. Nil: never asked.
	Refuses func(ctx context.Context, image, username, password string) (bool, error)
	// DeathLines is how many last lines of the log are kept with each death of a container; 0: ten, negative: none.
	DeathLines int
	// Eviction says when pods have to go for the node's sake; nil: never.
	Eviction *Eviction
	// Relist is how often all is looked at as a safety net; 0: 60 s, and 1 s when the runtime has no events.
	Relist time.Duration
}

// nodeState is a Node with what the agent keeps of it.
type nodeState struct {
	Node
	slots       chan struct{}
	puller      *puller
	ledger      ledger
	evictor     *evictor
	runtimeName string

	// facts decide which pods the node takes.
	facts nodeFacts
	// down is a goingDown.
	down atomic.Int32

	// counted says that what pods hold that were taken before is in the ledger.
	counting sync.Mutex
	counted  bool

	mu     sync.Mutex
	static staticPods
	// known is what the runtime can do, once it was asked.
	known *runtime.Features
	// resolver is the node's own DNS configuration, read once.
	resolver *runtimeapi.DNSConfig
}

func newNodeState(n Node) *nodeState {
	if n.ClusterDomain == "" {
		n.ClusterDomain = "cluster.local"
	}
	if n.ResolvConf == "" {
		n.ResolvConf = "/etc/resolv.conf"
	}
	if n.ParallelPulls == 0 {
		n.ParallelPulls = 5
	}
	facts := nodeFacts{unsafeSysctls: n.UnsafeSysctls, withoutAppArmor: !n.Simulated && !appArmorEnabled()}
	s := &nodeState{Node: n, facts: facts, puller: newPuller(n.Runtime, n.ParallelPulls)}
	s.puller.refuses = n.Refuses
	if n.Eviction != nil {
		s.evictor = &evictor{Eviction: n.Eviction, node: s}
	}
	if n.Parallel > 0 {
		s.slots = make(chan struct{}, n.Parallel)
	}
	return s
}

// takeSlot waits for a place among the starts of the node. It is kept until the look at the pod is over: a pod that has
// begun goes on to its containers before another begins, so that pods become ready one after the other and not all
// at the end.
func (rec *record) takeSlot(ctx context.Context) error {
	if rec.free != nil || rec.node.slots == nil {
		return nil
	}
	select {
	case rec.node.slots <- struct{}{}:
		rec.free = func() { <-rec.node.slots }
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveSlot gives the place back, if there is one.
func (rec *record) giveSlot() {
	if rec.free != nil {
		rec.free()
		rec.free = nil
	}
}

// appArmorEnabled says whether the kernel can hold containers to AppArmor profiles.
func appArmorEnabled() bool {
	return strings.HasPrefix(volume.ReadTail("/sys/module/apparmor/parameters/enabled", 8), "Y")
}

func (n *nodeState) host(ctx context.Context) host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.runtimeName == "" {
		if version, err := n.Runtime.Version(ctx); err == nil {
			n.runtimeName = version.RuntimeName
		}
	}
	return host{ips: n.HostIPs, runtimeName: n.runtimeName}
}

// observe asks the runtime for what it holds of one pod.
func (n *nodeState) observe(ctx context.Context, uid types.UID) (*observed, error) {
	selector := map[string]string{labelPodUID: string(uid)}
	sandboxes, err := n.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing sandboxes: %w", err)
	}
	out := &observed{}
	if len(sandboxes) == 0 {
		return out, nil
	}
	for _, s := range sandboxes {
		if err := n.addSandbox(ctx, out, s.Id); err != nil {
			return nil, err
		}
	}
	containers, err := n.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	for _, c := range containers {
		if err := n.addContainer(ctx, out, c.Id, c.PodSandboxId); err != nil {
			return nil, err
		}
	}
	out.sort()
	return out, nil
}

// observeMade lays what a step has made over what was observed before it. Of the pod's other containers nothing is asked: the end of
// one is an event, which brings the next look.
func (n *nodeState) observeMade(ctx context.Context, before *observed, m made) (*observed, error) {
	out := &observed{sandboxes: slices.Clone(before.sandboxes), containers: slices.Clone(before.containers)}
	if m.sandbox != "" {
		if err := n.addSandbox(ctx, out, m.sandbox); err != nil {
			return nil, err
		}
	}
	for _, c := range m.containers {
		if err := n.addContainer(ctx, out, c.id, c.sandboxID); err != nil {
			return nil, err
		}
	}
	out.sort()
	return out, nil
}

// addSandbox asks for one sandbox; one that has gone is left out.
func (n *nodeState) addSandbox(ctx context.Context, to *observed, id string) error {
	full, err := n.Runtime.PodSandboxStatus(ctx, id)
	switch {
	case status.Code(err) == codes.NotFound:
		return nil
	case err != nil:
		return fmt.Errorf("reading the status of sandbox %s: %w", id, err)
	}
	to.sandboxes = append(to.sandboxes, full)
	return nil
}

// addContainer asks for one container; one that has gone is left out.
func (n *nodeState) addContainer(ctx context.Context, to *observed, id, sandboxID string) error {
	full, err := n.Runtime.ContainerStatus(ctx, id)
	switch {
	case status.Code(err) == codes.NotFound:
		return nil
	case err != nil:
		return fmt.Errorf("reading the status of container %s: %w", id, err)
	}
	to.containers = append(to.containers, &container{ContainerStatus: full, sandboxID: sandboxID})
	return nil
}

// watch follows a node's runtime until the context ends: its events, and a slow relist as safety net. Each pod of which
// something ended or is new is handed to changed, with its labels.
func (n *nodeState) watch(ctx context.Context, changed func(labels map[string]string)) {
	log := logf.FromContext(ctx)
	every := n.Relist
	if every == 0 {
		every = 60 * time.Second
	}
	events := make(chan *runtimeapi.ContainerEventResponse, 64)
	without, again := make(chan struct{}), make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			err := n.Runtime.Events(ctx, events)
			if status.Code(err) == codes.Unimplemented {
				close(without)
				return
			}
			if ctx.Err() == nil {
				log.V(1).Info("Container events broke off, asking again", "reason", fmt.Sprint(err))
				sleep(ctx, time.Second)
				// What happened meanwhile is told by nobody.
				select {
				case again <- struct{}{}:
				default:
				}
			}
		}
	}()
	last := map[string]string{}
	relist := func() { last = n.relist(ctx, last, changed) }
	relist()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-without:
			// A runtime such as containerd 1.6: look often instead.
			without = nil
			if n.Relist == 0 {
				ticker.Reset(time.Second)
			}
		case event := <-events:
			// Starts are our own and seen by who made them; an end is news.
			if event.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
				if labels := event.GetPodSandboxStatus().GetLabels(); labels != nil {
					changed(labels)
				} else {
					relist()
				}
			}
		case <-again:
			relist()
		case <-ticker.C:
			relist()
		}
	}
}

// relist compares what runs with what ran, by pod, and hands over the pods that differ.
func (n *nodeState) relist(ctx context.Context, last map[string]string, changed func(map[string]string)) map[string]string {
	sandboxes, err := n.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		logf.FromContext(ctx).V(1).Info("Relisting failed", "reason", err.Error())
		return last
	}
	containers, err := n.Runtime.ListContainers(ctx, nil)
	if err != nil {
		logf.FromContext(ctx).V(1).Info("Relisting failed", "reason", err.Error())
		return last
	}
	now, labels := map[string]string{}, map[string]map[string]string{}
	note := func(l map[string]string, id string, state fmt.Stringer) {
		uid := l[labelPodUID]
		if uid == "" {
			return // Not a pod of ours.
		}
		labels[uid] = l
		now[uid] += id + state.String()
	}
	for _, s := range sandboxes {
		note(s.Labels, s.Id, s.State)
	}
	for _, c := range containers {
		note(c.Labels, c.Id, c.State)
	}
	for uid, state := range now {
		if last[uid] != state {
			changed(labels[uid])
		}
	}
	return now
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
