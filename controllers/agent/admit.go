// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// nodeFacts are what decides whether a node takes a pod at all. The zero value allows no unsafe sysctl.
type nodeFacts struct {
	// unsafeSysctls are allowed on this node beside the safe ones; a name may end in "*".
	unsafeSysctls []string
	// withoutAppArmor says that the kernel can't hold a container to an AppArmor profile.
	withoutAppArmor bool
	// down says whether and how the node goes down.
	down goingDown
}

// Reasons for which a pod isn't taken, upstream's.
const (
	reasonSysctl   = "SysctlForbidden"
	reasonAppArmor = "AppArmor"
	reasonShutdown = "NodeShutdown"
)

// safeSysctls are upstream's list (pkg/kubelet/sysctl): each has a namespace, and does no harm outside of its pod.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	"net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat",
}

// refused says why the node doesn't take a pod of which nothing has been made yet.
func refused(s situation) *podFailure {
	if len(s.seen.sandboxes) > 0 || s.pod.DeletionTimestamp != nil || podstate.IsTerminal(s.pod.Status.Phase) {
		return nil
	}
	reject := func(reason, message string) *podFailure {
		return &podFailure{reason: reason, message: "Pod was rejected: " + message}
	}
	if s.mem.facts.down == downForGood {
		return &podFailure{reason: reasonShutdown, message: messageRejected}
	}
	if why := s.mem.unfit; why.reason != "" {
		return reject(why.reason, why.message)
	}
	if sc := s.pod.Spec.SecurityContext; sc != nil {
		for _, sysctl := range sc.Sysctls {
			if why := forbiddenSysctl(s, strings.ReplaceAll(sysctl.Name, "/", ".")); why != "" {
				return reject(reasonSysctl, "forbidden sysctl: "+why)
			}
		}
	}
	if s.mem.facts.withoutAppArmor && wantsAppArmor(s) {
		return reject(reasonAppArmor, "Cannot enforce AppArmor: the kernel of this node has it not enabled: leave appArmorProfile out, or make it Unconfined")
	}
	return nil
}

func forbiddenSysctl(s situation, name string) string {
	matches := func(pattern string) bool {
		prefix, any := strings.CutSuffix(pattern, "*")
		return any && strings.HasPrefix(name, prefix) || name == pattern
	}
	if !slices.Contains(safeSysctls, name) && !slices.ContainsFunc(s.mem.facts.unsafeSysctls, matches) {
		return fmt.Sprintf("%q not allowlisted: leave it out, or allow it on the node with --allowed-unsafe-sysctls", name)
	}
	switch namespace := sysctlNamespace(name); {
	case namespace == "ipc" && s.pod.Spec.HostIPC, namespace == "net" && s.pod.Spec.HostNetwork:
		return fmt.Sprintf("%q not allowed with host %s enabled", name, namespace)
	}
	return ""
}

// sysctlNamespace is the namespace that a sysctl belongs to, or nothing.
func sysctlNamespace(name string) string {
	for _, prefix := range []string{"kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."} {
		if strings.HasPrefix(name, prefix) {
			return "ipc"
		}
	}
	if strings.HasPrefix(name, "net.") {
		return "net"
	}
	return ""
}

func wantsAppArmor(s situation) bool {
	confined := func(p *corev1.AppArmorProfile) bool {
		return p != nil && p.Type != corev1.AppArmorProfileTypeUnconfined
	}
	if sc := s.pod.Spec.SecurityContext; sc != nil && confined(sc.AppArmorProfile) {
		return true
	}
	for _, list := range [][]corev1.Container{s.pod.Spec.InitContainers, s.pod.Spec.Containers} {
		for i := range list {
			if sc := list[i].SecurityContext; sc != nil && confined(sc.AppArmorProfile) {
				return true
			}
		}
	}
	return false
}
