// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// Each pod with a user namespace has as many users of the host as upstream gives it, for itself alone. The first range is the host's own.
const (
	usersEach = 1 << 16
	usersMost = 1 << 14 // ranges; beyond, IDs come near those that systemd and NFS keep for themselves.
	// usersFile, in the pod's folder, holds the number of its range, so that a restart of the agent gives it to nobody else.
	usersFile = "user-namespace"
)

// features asks the runtime once what it can do.
func (n *nodeState) features(ctx context.Context) (runtime.Features, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known != nil {
		return *n.known, nil
	}
	asked, ok := n.Runtime.(runtime.Featured)
	if !ok {
		return runtime.Features{}, nil
	}
	features, err := asked.Features(ctx)
	if err != nil {
		return runtime.Features{}, fmt.Errorf("asking the runtime what it can do: %w", err)
	}
	n.known = &features
	return features, nil
}

// userNamespace is the pod's, or nil when it shares the host's. It is the same one each time it is asked for.
func (n *nodeState) userNamespace(ctx context.Context, pod *pcorev1.Pod) (*runtimeapi.UserNamespace, error) {
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers || n.Volumes == nil {
		return nil, nil
	}
	features, err := n.features(ctx)
	if err != nil {
		return nil, err
	}
	if !features.UserNamespaces {
		return nil, errors.New("hostUsers: false needs user namespaces, which this node's runtime or kernel doesn't have: remove it, or set it to true")
	}
	index, err := n.takeUsers(pod.UID)
	if err != nil {
		return nil, err
	}
	ids := []*runtimeapi.IDMapping{{HostId: index * usersEach, ContainerId: 0, Length: usersEach}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

// takeUsers returns the number of the pod's range of users. It is free again when the pod's folder is removed.
func (n *nodeState) takeUsers(uid types.UID) (uint32, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if index, ok := n.usersOf(uid); ok {
		return index, nil
	}
	pods, err := n.Volumes.Pods()
	if err != nil {
		return 0, err
	}
	taken := map[uint32]bool{}
	for _, other := range pods {
		if index, ok := n.usersOf(other); ok {
			taken[index] = true
		}
	}
	for index := uint32(1); index < usersMost; index++ {
		if !taken[index] {
			_, err := n.Volumes.WriteFile(uid, usersFile, []byte(strconv.FormatUint(uint64(index), 10)), 0o600)
			return index, err
		}
	}
	return 0, errors.New("no range of users is left on this node: remove pods with hostUsers: false")
}

func (n *nodeState) usersOf(uid types.UID) (uint32, bool) {
	index, err := strconv.ParseUint(n.Volumes.ReadTail(uid, usersFile, 16), 10, 32)
	return uint32(index), err == nil
}

// mapUsers lets a container of a pod with a user namespace see the files of its mounts as their owners on the host do.
func mapUsers(config *runtimeapi.ContainerConfig, users *runtimeapi.UserNamespace) {
	if users == nil {
		return
	}
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	for _, m := range config.Mounts {
		if m.Image == nil {
			m.UidMappings, m.GidMappings = users.Uids, users.Gids
		}
	}
}
