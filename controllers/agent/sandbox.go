// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// makeSandboxConfig says what the pod's sandbox is to be. resolver is the node's own DNS configuration.
func makeSandboxConfig(pod *pcorev1.Pod, n *Node, resolver *runtimeapi.DNSConfig, attempt uint32) *runtimeapi.PodSandboxConfig {
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Uid: string(pod.UID), Namespace: pod.Namespace, Attempt: attempt},
		Labels:       podLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		DnsConfig:    dnsConfig(pod, n, resolver),
		PortMappings: portMappings(pod),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent(pod, n),
			SecurityContext: sandboxSecurity(pod, n.SandboxProfile),
			Sysctls:         sysctls(pod),
		},
	}
	if !pod.Spec.HostNetwork {
		config.Hostname = podHostname(pod, n)
	}
	if n.LogDir != "" {
		config.LogDirectory = podLogDir(pod, n)
	}
	return config
}

func podLogDir(pod *pcorev1.Pod, n *Node) string {
	return filepath.Join(n.LogDir, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// cgroupParent is the pod's cgroup: by QoS class, as the kubelet's cgroupfs driver lays it out.
func cgroupParent(pod *pcorev1.Pod, n *Node) string {
	if n.CgroupRoot == "" {
		return ""
	}
	switch podstate.QOSClass(&pod.Spec.PodSpec) {
	case corev1.PodQOSBestEffort:
		return filepath.Join(n.CgroupRoot, "besteffort", "pod"+string(pod.UID))
	case corev1.PodQOSBurstable:
		return filepath.Join(n.CgroupRoot, "burstable", "pod"+string(pod.UID))
	}
	return filepath.Join(n.CgroupRoot, "pod"+string(pod.UID))
}

// hostnameMost is Linux's limit of a host name, less one.
const hostnameMost = 63

func shortHostname(pod *pcorev1.Pod) string {
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	if len(name) > hostnameMost {
		name = strings.TrimRight(name[:hostnameMost], "-.")
	}
	return name
}

func podDomain(pod *pcorev1.Pod, n *Node) string {
	if pod.Spec.Subdomain == "" {
		return ""
	}
	return fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, n.ClusterDomain)
}

func podHostname(pod *pcorev1.Pod, n *Node) string {
	if override := pod.Spec.HostnameOverride; override != nil && *override != "" {
		return *override
	}
	name := shortHostname(pod)
	if fqdn := pod.Spec.SetHostnameAsFQDN; fqdn != nil && *fqdn && podDomain(pod, n) != "" {
		return name + "." + podDomain(pod, n)
	}
	return name
}

// hostsFile is the pod's /etc/hosts, as the kubelet writes it.
func hostsFile(pod *pcorev1.Pod, n *Node, ips []string) []byte {
	var b strings.Builder
	b.WriteString("# Managed by Pinnace.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	for _, ip := range ips {
		if domain := podDomain(pod, n); domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, shortHostname(pod), domain, shortHostname(pod))
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, shortHostname(pod))
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, alias := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
		}
	}
	return []byte(b.String())
}

// dnsConfig follows upstream's dns.Configurer: ClusterFirst asks the cluster's DNS with its search domains, Default and
// pods with the host's network ask whom the node asks, None takes spec.dnsConfig alone; spec.dnsConfig is merged in.
func dnsConfig(pod *pcorev1.Pod, n *Node, resolver *runtimeapi.DNSConfig) *runtimeapi.DNSConfig {
	out := &runtimeapi.DNSConfig{}
	policy := pod.Spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault, len(n.ClusterDNS) == 0, pod.Spec.HostNetwork && policy != corev1.DNSClusterFirstWithHostNet:
		out.Servers = append(out.Servers, resolver.GetServers()...)
		out.Searches = append(out.Searches, resolver.GetSearches()...)
		out.Options = append(out.Options, resolver.GetOptions()...)
	default:
		out.Servers = append(out.Servers, n.ClusterDNS...)
		out.Searches = []string{pod.Namespace + ".svc." + n.ClusterDomain, "svc." + n.ClusterDomain, n.ClusterDomain}
		out.Searches = append(out.Searches, resolver.GetSearches()...)
		out.Options = []string{"ndots:5"}
	}
	if extra := pod.Spec.DNSConfig; extra != nil {
		out.Servers = appendNew(out.Servers, extra.Nameservers...)
		out.Searches = appendNew(out.Searches, extra.Searches...)
		out.Options = mergeOptions(out.Options, extra.Options)
	}
	return out
}

func appendNew(list []string, more ...string) []string {
	seen := map[string]bool{}
	for _, s := range list {
		seen[s] = true
	}
	for _, s := range more {
		if !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	return list
}

func mergeOptions(have []string, more []corev1.PodDNSConfigOption) []string {
	for _, o := range more {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		replaced := false
		for i, old := range have {
			if name, _, _ := strings.Cut(old, ":"); name == o.Name {
				have[i], replaced = text, true
			}
		}
		if !replaced {
			have = append(have, text)
		}
	}
	return have
}

func portMappings(pod *pcorev1.Pod) []*runtimeapi.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var out []*runtimeapi.PortMapping
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, port := range list[i].Ports {
				if port.HostPort == 0 {
					continue
				}
				out = append(out, &runtimeapi.PortMapping{
					Protocol: protocolOf(port.Protocol), ContainerPort: port.ContainerPort, HostPort: port.HostPort, HostIp: port.HostIP,
				})
			}
		}
	}
	return out
}

func protocolOf(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

// namespaces are the pod's. The zero value of a mode is POD, so each is set.
func namespaces(pod *pcorev1.Pod) *runtimeapi.NamespaceOption {
	out := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_POD, Ipc: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER,
	}
	if pod.Spec.HostNetwork {
		out.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		out.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		out.Pid = runtimeapi.NamespaceMode_POD
	}
	return out
}

func sandboxSecurity(pod *pcorev1.Pod, profile string) *runtimeapi.LinuxSandboxSecurityContext {
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Privileged:       anyPrivileged(pod),
		// The pause process needs next to nothing: a profile of its own, or the runtime's, as the kubelet has it.
		Seccomp: runtime.SandboxSeccomp(profile),
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return out
	}
	if sc.RunAsUser != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
		if sc.RunAsGroup != nil {
			out.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
		}
	}
	out.SupplementalGroups = supplementalGroups(sc)
	out.SupplementalGroupsPolicy = groupsPolicy(sc)
	out.SelinuxOptions = selinux(sc.SELinuxOptions)
	return out
}

func anyPrivileged(pod *pcorev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if sc := list[i].SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
				return true
			}
		}
	}
	return false
}

func supplementalGroups(sc *corev1.PodSecurityContext) []int64 {
	out := append([]int64(nil), sc.SupplementalGroups...)
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	return out
}

func groupsPolicy(sc *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func sysctls(pod *pcorev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	out := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		out[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return out
}
