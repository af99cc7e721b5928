// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podenv"
)

// containerInputs is what a container's configuration needs beside its spec.
type containerInputs struct {
	image    *runtimeapi.Image
	imageRef string
	env      []podenv.Variable
	mounts   []*runtimeapi.Mount
	logs     bool
	// capacity of the machine: of its memory for oom_score_adj, and its sizes of huge pages.
	capacity corev1.ResourceList
}

// makeContainerConfig says what a container is to be. Its errors are mistakes in the pod, in a sentence for the user.
func makeContainerConfig(pod *pcorev1.Pod, step startStep, in containerInputs) (*runtimeapi.ContainerConfig, error) {
	c := step.container
	security, err := containerSecurity(pod, c, in.image)
	if err != nil {
		return nil, err
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(step.restartCount)},
		Image:       &runtimeapi.ImageSpec{Image: in.imageRef, UserSpecifiedImage: c.Image},
		Command:     podenv.ExpandAll(c.Command, in.env),
		Args:        podenv.ExpandAll(c.Args, in.env),
		WorkingDir:  c.WorkingDir,
		Labels:      containerLabels(pod, c.Name),
		Annotations: containerAnnotations(pod, step),
		Mounts:      in.mounts,
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       containerResources(pod, c, in.capacity),
			SecurityContext: security,
		},
	}
	for _, v := range in.env {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	if in.logs {
		config.LogPath = filepath.Join(c.Name, strconv.Itoa(int(step.restartCount))+".log")
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		if signal, ok := runtimeapi.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)]; ok {
			config.StopSignal = runtimeapi.Signal(signal)
		}
	}
	return config, nil
}

// The paths that a container doesn't see or can't write unless it is privileged or asks for procMount: Unmasked; containerd's
// and the kubelet's own list.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func containerSecurity(pod *pcorev1.Pod, c *corev1.Container, image *runtimeapi.Image) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc, psc := c.SecurityContext, pod.Spec.SecurityContext
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:         namespaces(pod),
		Privileged:               isTrue(sc.Privileged),
		ReadonlyRootfs:           isTrue(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:               sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		SupplementalGroups:       supplementalGroups(psc),
		SupplementalGroupsPolicy: groupsPolicy(psc),
		SelinuxOptions:           selinux(either(sc.SELinuxOptions, psc.SELinuxOptions)),
		Seccomp:                  seccomp(either(sc.SeccompProfile, psc.SeccompProfile)),
		Apparmor:                 apparmor(either(sc.AppArmorProfile, psc.AppArmorProfile)),
	}
	if sc.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, name := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(name))
		}
		for _, name := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(name))
		}
	}
	if unmasked := sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount; !unmasked && !out.Privileged {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	if out.Privileged {
		out.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	return out, setUser(out, either(sc.RunAsUser, psc.RunAsUser), either(sc.RunAsGroup, psc.RunAsGroup),
		isTrue(either(sc.RunAsNonRoot, psc.RunAsNonRoot)), c, image)
}

// setUser sets user and group, and refuses root where runAsNonRoot forbids it, as the kubelet does before it creates.
func setUser(out *runtimeapi.LinuxContainerSecurityContext, user, group *int64, nonRoot bool, c *corev1.Container, image *runtimeapi.Image) error {
	if user == nil && (group != nil || nonRoot) && image.GetUid() != nil {
		if uid := image.GetUid().GetValue(); !nonRoot || uid != 0 {
			user = &uid
		}
	}
	if user != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
	} else if group != nil {
		out.RunAsUsername = image.GetUsername()
		if out.RunAsUsername == "" {
			out.RunAsUser = &runtimeapi.Int64Value{}
		}
	}
	if group != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *group}
	}
	switch {
	case !nonRoot || user != nil && *user != 0:
		return nil
	case user != nil:
		return fmt.Errorf("container's runAsUser breaks non-root policy (container: %s): set runAsUser to another user than 0", c.Name)
	case image.GetUsername() != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (container: %s): set runAsUser", image.GetUsername(), c.Name)
	}
	return fmt.Errorf("container has runAsNonRoot and image will run as root (container: %s): set runAsUser to another user than 0", c.Name)
}

// userAdvice is what to do about a container that can't be created when it was to run as a user whom only the image knows by name; empty
// when it has a number. The runtime looks the name up, and says in its own words that it isn't there.
func userAdvice(config *runtimeapi.ContainerConfig, image *runtimeapi.Image) string {
	security := config.GetLinux().GetSecurityContext()
	if security.GetRunAsUser() != nil || image.GetUsername() == "" {
		return ""
	}
	return fmt.Sprintf(" (it was to run as the image's user %q: where the image's /etc/passwd doesn't have that name, set runAsUser to a number)", image.GetUsername())
}

// seccomp: a profile that isn't set must be said to be none, for the zero value means the runtime's default.
func seccomp(p *corev1.SeccompProfile) *runtimeapi.SecurityProfile {
	switch {
	case p == nil || p.Type == corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: path.Join("/var/lib/kubelet/seccomp", *p.LocalhostProfile),
		}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

// apparmor: nothing asked for leaves it to the runtime, which uses its own profile where the kernel has AppArmor.
func apparmor(p *corev1.AppArmorProfile) *runtimeapi.SecurityProfile {
	switch {
	case p == nil:
		return nil
	case p.Type == corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case p.Type == corev1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

func either[T any](first, second *T) *T {
	if first != nil {
		return first
	}
	return second
}

func isTrue(b *bool) bool { return b != nil && *b }
