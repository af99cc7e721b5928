// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	imagename "github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/internal/podenv"
	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// foundFor bounds how long an image counts as present without a further question: after that it may have been removed as unused.
const foundFor = 10 * time.Second

// image sees to the container's image. ok false: it is not there yet, or can't be had, which is remembered for the status.
func (r *Reconciler) image(ctx context.Context, rec *record, pod *pcorev1.Pod, c *corev1.Container, sandbox *runtimeapi.PodSandboxConfig) (found *runtimeapi.Image, ref string, ok bool) {
	rec.mu.Lock()
	pulled, known, age := rec.pulled[c.Name], rec.found[c.Name], r.options.Now().Sub(rec.foundAt)
	delete(rec.found, c.Name)
	rec.mu.Unlock()
	if known != nil && age < foundFor {
		return known, known.Id, true
	}
	if _, err := imagename.ParseReference(c.Image); err != nil {
		rec.failStart(c.Name, "InvalidImageName", fmt.Sprintf("Failed to read the name of the image: %s", err), r.options.Now(), backoffFirst, backoffMost)
		return nil, "", false
	}
	policy := pullPolicy(c)
	if policy != corev1.PullAlways || pulled != "" {
		spec := &runtimeapi.ImageSpec{Image: c.Image}
		if pulled != "" {
			spec.Image = pulled
		}
		image, err := rec.node.Runtime.ImageStatus(ctx, spec)
		switch {
		case err != nil:
			rec.failStart(c.Name, "ImageInspectError", fmt.Sprintf("Failed to inspect image %q: %s", c.Image, message(err)), r.options.Now(), backoffFirst, backoffMost)
			return nil, "", false
		case image != nil:
			return image, image.Id, true
		case policy == corev1.PullNever:
			rec.failStart(c.Name, "ErrImageNeverPull",
				fmt.Sprintf("Container image %q is not present with pull policy of Never: put it on the node, or change imagePullPolicy", c.Image),
				r.options.Now(), backoffFirst, backoffMost)
			return nil, "", false
		}
	}
	r.pull(ctx, rec, pod, c, sandbox)
	return nil, "", false
}

// pull begins to pull unless that is under way. The container waits meanwhile, with the reason that it had.
func (r *Reconciler) pull(ctx context.Context, rec *record, pod *pcorev1.Pod, c *corev1.Container, sandbox *runtimeapi.PodSandboxConfig) {
	rec.mu.Lock()
	waits, again := rec.mem.failed[c.Name]
	if again && waits.retryAt.IsZero() {
		rec.mu.Unlock()
		return
	}
	waits.retryAt = time.Time{}
	set(&rec.mem.failed, c.Name, waits)
	rec.mu.Unlock()
	since := rec.firstSeen
	if again {
		since = r.options.Now() // A secret that was missing may be there by now.
	}
	auths := r.pullSecrets(ctx, rec, pod, c.Image, since)
	name, image := c.Name, c.Image
	stop := r.tellProgress(&pullTeller{rec: rec, pod: pod, container: name, image: image, key: pullKey(image, auths), again: waits.delay > 0})
	rec.node.puller.pull(r.context(), image, auths, sandbox, func(ref string, err error) {
		stop()
		if err != nil {
			reason, text := "ErrImagePull", pullMessage(image, err)
			if waits.delay > 0 {
				reason, text = "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", image, text)
			}
			rec.failStart(name, reason, text, r.options.Now(), backoffFirst, backoffMost)
		} else {
			rec.mu.Lock()
			set(&rec.pulled, name, ref)
			delete(rec.mem.failed, name)
			rec.mu.Unlock()
		}
		r.wake(rec.key)
	})
}

func pullMessage(image string, err error) string {
	return fmt.Sprintf("failed to pull image %q: %s", image, message(err))
}

// prefetch begins the pulls of images that aren't there while the sandbox is being made.
func (r *Reconciler) prefetch(ctx context.Context, rec *record, pod *pcorev1.Pod, sandbox *runtimeapi.PodSandboxConfig) {
	if rec.node.Simulated {
		return
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			rec.mu.Lock()
			known := rec.pulled[c.Name] != "" || rec.mem.failed[c.Name] != (startFailure{})
			rec.mu.Unlock()
			if known || pullPolicy(c) == corev1.PullNever {
				continue
			}
			if _, err := imagename.ParseReference(c.Image); err != nil {
				continue // image says so.
			}
			if pullPolicy(c) == corev1.PullIfNotPresent {
				image, err := rec.node.Runtime.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: c.Image})
				if image != nil {
					rec.mu.Lock()
					set(&rec.found, c.Name, image)
					rec.foundAt = r.options.Now()
					rec.mu.Unlock()
				}
				if err != nil || image != nil {
					continue
				}
			}
			r.pull(ctx, rec, pod, c, sandbox)
		}
	}
}

// containerConfig gathers what a container needs and says what it is to be.
func (r *Reconciler) containerConfig(ctx context.Context, rec *record, pod *pcorev1.Pod, seen *observed, step startStep, image *runtimeapi.Image, ref string) (*runtimeapi.ContainerConfig, error) {
	now := r.options.Now()
	since := rec.firstSeen
	rec.mu.Lock()
	if _, failed := rec.mem.failed[step.container.Name]; failed {
		since = now // What was missing may be there by now.
	}
	rec.mu.Unlock()
	down := rec.downward(pod, seen)
	objects, err := r.refs.environment(ctx, pod.Namespace, step.container, since, now)
	if err != nil {
		return nil, err
	}
	services, err := r.serviceVariables(ctx, pod)
	if err != nil {
		return nil, err
	}
	if err := r.mount(ctx, rec, pod, down, since); err != nil {
		return nil, &mountError{err: err}
	}
	objects.File = rec.envFile
	env, err := podenv.Make(step.container, down, objects, services)
	if err != nil {
		return nil, err
	}
	features, err := rec.node.features(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := rec.containerMounts(pod, step, env, down.PodIPs, features)
	if err != nil {
		return nil, err
	}
	sandboxID, _, _ := seen.sandbox(pod.Spec.HostNetwork)
	target, err := targetID(seen, sandboxID, step.target)
	if err != nil {
		return nil, err
	}
	users, err := rec.node.userNamespace(ctx, pod)
	if err != nil {
		return nil, err
	}
	config, err := makeContainerConfig(pod, step, containerInputs{
		image: image, imageRef: ref, env: env, mounts: mounts,
		logs: rec.node.LogDir != "", capacity: rec.node.Capacity,
	})
	if err != nil {
		return nil, err
	}
	joinTarget(config, target)
	mapUsers(config, users)
	return config, nil
}

// envFile reads a file of a volume for the environment.
func (r *record) envFile(name, path string) (string, bool, error) {
	const most = 1 << 20
	host, ok := r.mounts[name]
	if !ok {
		return "", false, fmt.Errorf("the pod has no such volume on this node")
	}
	return volume.ReadFile(host, path, most)
}

// serviceVariables are those of the services of the pod's namespace, unless the pod doesn't want them.
func (r *Reconciler) serviceVariables(ctx context.Context, pod *pcorev1.Pod) ([]podenv.Variable, error) {
	if r.options.Services == nil || pod.Spec.EnableServiceLinks != nil && !*pod.Spec.EnableServiceLinks {
		return nil, nil
	}
	services, err := r.options.Services(ctx, pod.Namespace)
	if err != nil {
		return nil, fmt.Errorf("listing the services of namespace %s: %w", pod.Namespace, err)
	}
	return podenv.OfServices(services), nil
}

func (r *record) downward(pod *pcorev1.Pod, seen *observed) *podenv.Downward {
	down := &podenv.Downward{Pod: pod, PodIPs: seen.addresses(), HostIPs: r.node.HostIPs, Allocatable: r.node.Allocatable}
	if pod.Spec.HostNetwork {
		down.PodIPs = r.node.HostIPs
	}
	return down
}

// mount makes the pod's volumes once; refresh keeps them up to date.
func (r *Reconciler) mount(ctx context.Context, rec *record, pod *pcorev1.Pod, down *podenv.Downward, since time.Time) error {
	if rec.mounts != nil {
		return nil
	}
	volumes, err := r.volumes(ctx, rec, pod, down, since)
	if err != nil {
		return err
	}
	if rec.node.Volumes == nil {
		rec.mounts = map[string]string{}
		return nil
	}
	mounts, err := rec.node.Volumes.Mount(rec.uid, volumes, fsGroup(pod))
	if err != nil {
		return err
	}
	rec.mounts = mounts
	rec.refreshAt = r.options.Now().Add(r.options.Refresh)
	return nil
}

// refresh brings the files of a running pod up to date from time to time, and tells when the next time is.
func (r *Reconciler) refresh(ctx context.Context, rec *record, pod *pcorev1.Pod, seen *observed, wait *waiter) error {
	if rec.node.Volumes == nil || !hasFiles(pod) || !seen.anyRuns() {
		return nil
	}
	now := r.options.Now()
	if rec.mounts == nil || !now.Before(rec.refreshAt) || rec.metaVersion != pod.ResourceVersion {
		rec.metaVersion = pod.ResourceVersion
		volumes, err := r.volumes(ctx, rec, pod, rec.downward(pod, seen), now.Add(-r.options.Refresh/2))
		if err == nil {
			rec.mounts, err = rec.node.Volumes.Mount(rec.uid, volumes, fsGroup(pod))
		}
		if err != nil {
			r.event(pod, corev1.EventTypeWarning, "FailedMount", "Refreshing", message(err))
		}
		rec.refreshAt = now.Add(r.options.Refresh)
	}
	wait.until(rec.refreshAt)
	return nil
}

func fsGroup(pod *pcorev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// messageFile is where a container's termination message is kept, below the pod's folder.
func messageFile(name string, restartCount int32) string {
	return filepath.Join("containers", name, strconv.Itoa(int(restartCount)))
}

// containerMounts are the container's volume mounts, its /etc/hosts and its termination message.
func (r *record) containerMounts(pod *pcorev1.Pod, step startStep, env []podenv.Variable, podIPs []string, features runtime.Features) ([]*runtimeapi.Mount, error) {
	if r.node.Volumes == nil {
		return nil, nil
	}
	c := step.container
	var out []*runtimeapi.Mount
	hosts := false
	for i, m := range c.VolumeMounts {
		mount, err := r.volumeMount(pod, c, i, m, env, features)
		if err != nil {
			return nil, err
		}
		hosts = hosts || m.MountPath == "/etc/hosts"
		out = append(out, mount)
	}
	if !hosts && !pod.Spec.HostNetwork {
		path, err := r.node.Volumes.WriteFile(r.uid, "etc-hosts", hostsFile(pod, &r.node.Node, podIPs), 0o644)
		if err != nil {
			return nil, err
		}
		readonly := c.SecurityContext != nil && isTrue(c.SecurityContext.ReadOnlyRootFilesystem)
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: path, Readonly: readonly})
	}
	// Anybody in the container may leave the message, whatever its user.
	path, err := r.node.Volumes.WriteFile(r.uid, messageFile(c.Name, step.restartCount), nil, 0o666)
	if err != nil {
		return nil, err
	}
	return append(out, &runtimeapi.Mount{ContainerPath: messagePath(c), HostPath: path}), nil
}

func (r *record) volumeMount(pod *pcorev1.Pod, c *corev1.Container, index int, m corev1.VolumeMount, env []podenv.Variable, features runtime.Features) (*runtimeapi.Mount, error) {
	host, ok := r.mounts[m.Name]
	image := r.imageVolumes[m.Name]
	if !ok && image == nil {
		return nil, fmt.Errorf("the container mounts volume %q, which the pod doesn't have", m.Name)
	}
	sub := m.SubPath
	if m.SubPathExpr != "" {
		sub = podenv.ExpandAll([]string{m.SubPathExpr}, env)[0]
		if strings.Contains(sub, "$(") {
			return nil, fmt.Errorf("subPathExpr %q of mount %s names a variable that isn't set", m.SubPathExpr, m.MountPath)
		}
	}
	if sub != "" && image == nil {
		path, err := r.node.Volumes.SubPath(r.uid, c.Name, index, host, sub)
		if err != nil {
			return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
		}
		host = path
	}
	out := &runtimeapi.Mount{ContainerPath: m.MountPath, HostPath: host, Readonly: m.ReadOnly}
	if image != nil {
		out.Image, out.ImageSubPath, out.Readonly = image, sub, true
	}
	if !filepath.IsAbs(out.ContainerPath) {
		out.ContainerPath = filepath.Join("/", out.ContainerPath)
	}
	if readOnlyVolume(pod, m.Name) {
		out.Readonly = true
	}
	if m.MountPropagation != nil {
		switch *m.MountPropagation {
		case corev1.MountPropagationHostToContainer:
			out.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case corev1.MountPropagationBidirectional:
			out.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	var err error
	out.RecursiveReadOnly, err = recursiveReadOnly(m, features.RecursiveReadOnlyMounts)
	return out, err
}

// recursiveReadOnly says whether what is mounted below a mount is read-only too; possible is what the runtime can do.
func recursiveReadOnly(m corev1.VolumeMount, possible bool) (bool, error) {
	switch {
	case m.RecursiveReadOnly == nil, *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled:
		return false, nil
	case !m.ReadOnly:
		return false, fmt.Errorf("recursiveReadOnly of volume mount %q needs readOnly: true", m.Name)
	case m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone:
		return false, fmt.Errorf("recursiveReadOnly of volume mount %q goes with no mountPropagation but None", m.Name)
	case *m.RecursiveReadOnly == corev1.RecursiveReadOnlyIfPossible:
		return possible, nil
	case !possible:
		return false, fmt.Errorf("recursiveReadOnly of volume mount %q is not supported by this node's runtime: use IfPossible", m.Name)
	}
	return true, nil
}

// readOnlyVolume tells whether a volume is made of files from elsewhere, which a container never writes.
func readOnlyVolume(pod *pcorev1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == name {
			return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
		}
	}
	return false
}

// hostDNS is the node's own resolver configuration, read once.
func (n *nodeState) hostDNS() *runtimeapi.DNSConfig {
	if n.Simulated {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.resolver == nil {
		n.resolver = parseResolvConf(volume.ReadTail(n.ResolvConf, 64<<10))
	}
	return n.resolver
}

func parseResolvConf(text string) *runtimeapi.DNSConfig {
	out := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			out.Servers = append(out.Servers, fields[1])
		case "search":
			out.Searches = fields[1:]
		case "options":
			out.Options = append(out.Options, fields[1:]...)
		}
	}
	return out
}

// logTail takes the last lines out of a log in CRI's format, "TIME STREAM FLAGS TEXT".
func logTail(log string, most, lines int) string {
	var out []string
	for line := range strings.Lines(log) {
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
			out = append(out, parts[3])
		}
	}
	text := strings.Join(out[max(len(out)-lines, 0):], "")
	return text[max(len(text)-most, 0):]
}
