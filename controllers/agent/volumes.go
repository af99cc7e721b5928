// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podenv"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// TokenFunc requests a token of a service account for a pod, for the audience (empty: the API server's) and time.
type TokenFunc func(ctx context.Context, pod *pcorev1.Pod, serviceAccount, audience string, lives time.Duration) (token []byte, expires time.Time, err error)

// mountError is a volume that can't be made: the pod waits as ContainerCreating, as upstream's does.
type mountError struct{ err error }

func (e *mountError) Error() string { return "MountVolume.SetUp failed for " + e.err.Error() }
func (e *mountError) Unwrap() error { return e.err }

// volumes says what the pod's volumes are to be; what they refer to is read from since on.
func (r *Reconciler) volumes(ctx context.Context, rec *record, pod *pcorev1.Pod, down *podenv.Downward, since time.Time) ([]volume.Volume, error) {
	out := make([]volume.Volume, 0, len(pod.Spec.Volumes))
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image != nil {
			continue // The runtime mounts it by itself.
		}
		made := volume.Volume{Name: v.Name}
		var err error
		switch {
		case v.EmptyDir != nil:
			made.Empty = &volume.Empty{Memory: v.EmptyDir.Medium == corev1.StorageMediumMemory}
			if v.EmptyDir.SizeLimit != nil {
				made.Empty.SizeLimit = v.EmptyDir.SizeLimit.Value()
			}
		case v.HostPath != nil:
			made.Host = &volume.Host{Path: v.HostPath.Path}
			if v.HostPath.Type != nil {
				made.Host.Type = *v.HostPath.Type
			}
		default:
			made.Files, err = r.files(ctx, rec, pod, v, down, since)
		}
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Name, err)
		}
		out = append(out, made)
	}
	return out, nil
}

// files gathers the content of a volume that is made of files.
func (r *Reconciler) files(ctx context.Context, rec *record, pod *pcorev1.Pod, v *corev1.Volume, down *podenv.Downward, since time.Time) (*volume.Files, error) {
	g := &gatherer{r: r, pod: pod, down: down, since: since, files: &volume.Files{Data: map[string]volume.File{}}, owner: fileOwner(pod)}
	switch {
	case v.ConfigMap != nil:
		return g.files, g.reference(ctx, "ConfigMap", v.ConfigMap.Name, v.ConfigMap.Items, mode(v.ConfigMap.DefaultMode, 0o644), v.ConfigMap.Optional)
	case v.Secret != nil:
		g.files.Memory = true
		return g.files, g.reference(ctx, "Secret", v.Secret.SecretName, v.Secret.Items, mode(v.Secret.DefaultMode, 0o644), v.Secret.Optional)
	case v.DownwardAPI != nil:
		return g.files, g.downward(v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode, 0o644))
	case v.Projected != nil:
		g.files.Memory = true
		for i := range v.Projected.Sources {
			if err := g.source(ctx, rec, &v.Projected.Sources[i], mode(v.Projected.DefaultMode, 0o644)); err != nil {
				return nil, err
			}
		}
		return g.files, nil
	}
	return nil, errors.New("this kind of volume is not supported yet: use emptyDir, hostPath, configMap, secret, downwardAPI, projected or image")
}

type gatherer struct {
	r     *Reconciler
	pod   *pcorev1.Pod
	down  *podenv.Downward
	since time.Time
	files *volume.Files
	owner *int64
}

func (g *gatherer) source(ctx context.Context, rec *record, s *corev1.VolumeProjection, otherwise fs.FileMode) error {
	switch {
	case s.ConfigMap != nil:
		return g.reference(ctx, "ConfigMap", s.ConfigMap.Name, s.ConfigMap.Items, otherwise, s.ConfigMap.Optional)
	case s.Secret != nil:
		return g.reference(ctx, "Secret", s.Secret.Name, s.Secret.Items, otherwise, s.Secret.Optional)
	case s.DownwardAPI != nil:
		return g.downward(s.DownwardAPI.Items, otherwise)
	case s.ServiceAccountToken != nil:
		token, err := g.r.token(ctx, rec, g.pod, s.ServiceAccountToken)
		if err != nil {
			return err
		}
		g.files.Data[s.ServiceAccountToken.Path] = volume.File{Data: token, Mode: tokenMode(g.pod, g.owner), Owner: g.owner}
		return nil
	}
	return errors.New("this source of a projected volume is not supported yet: use configMap, secret, downwardAPI or serviceAccountToken")
}

func (g *gatherer) reference(ctx context.Context, kind, name string, items []corev1.KeyToPath, otherwise fs.FileMode, optional *bool) error {
	found, err := g.r.refs.get(ctx, kind, g.pod.Namespace, name, g.since, g.r.options.Now())
	if err != nil {
		return err
	}
	if found == nil {
		if isTrue(optional) {
			return nil
		}
		return fmt.Errorf("%s %q not found in namespace %s, neither Pinnace's nor the native one: create it, or mark it optional", kind, name, g.pod.Namespace)
	}
	if len(items) == 0 {
		for key, data := range found.data {
			g.files.Data[key] = volume.File{Data: data, Mode: otherwise}
		}
		return nil
	}
	for _, item := range items {
		data, ok := found.data[item.Key]
		if !ok {
			if isTrue(optional) {
				continue
			}
			return fmt.Errorf("%s %q has no key %q, which the volume's items name", kind, name, item.Key)
		}
		g.files.Data[item.Path] = volume.File{Data: data, Mode: mode(item.Mode, otherwise)}
	}
	return nil
}

func (g *gatherer) downward(items []corev1.DownwardAPIVolumeFile, otherwise fs.FileMode) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = g.down.Field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = g.down.Resource(item.ResourceFieldRef, "")
		}
		if err != nil {
			return err
		}
		g.files.Data[item.Path] = volume.File{Data: []byte(value), Mode: mode(item.Mode, otherwise)}
	}
	return nil
}

// podToken is a token that the agent holds for a pod, until it is time for the next.
type podToken struct {
	token   []byte
	renewAt time.Time
}

// token returns a token that has at least a fifth of its life before it; upstream's rule for rotation.
func (r *Reconciler) token(ctx context.Context, rec *record, pod *pcorev1.Pod, want *corev1.ServiceAccountTokenProjection) ([]byte, error) {
	if r.options.Tokens == nil {
		return nil, errors.New("service account tokens are not available on this node")
	}
	account, err := (&podenv.Downward{Pod: pod}).Field("spec.serviceAccountName")
	if err != nil {
		return nil, err
	}
	lives := time.Hour
	if want.ExpirationSeconds != nil {
		lives = time.Duration(*want.ExpirationSeconds) * time.Second
	}
	key := account + "\x00" + want.Audience + "\x00" + lives.String()
	now := r.options.Now()
	if held, ok := rec.tokens[key]; ok && now.Before(held.renewAt) {
		return held.token, nil
	}
	var token []byte
	var expires time.Time
	err = retryForbidden(ctx, func() (err error) {
		token, expires, err = r.options.Tokens(ctx, pod, account, want.Audience, lives)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("requesting a token of service account %s: %w", account, err)
	}
	set(&rec.tokens, key, podToken{token: token, renewAt: now.Add(expires.Sub(now) * 4 / 5)})
	return token, nil
}

// fileOwner is the user of a pod's containers when they are all of one user, to whom tokens then belong.
func fileOwner(pod *pcorev1.Pod) *int64 {
	if pod.Spec.SecurityContext != nil && pod.Spec.SecurityContext.FSGroup != nil {
		return nil // The group has access.
	}
	var owner *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			var user *int64
			if sc := list[i].SecurityContext; sc != nil {
				user = sc.RunAsUser
			}
			if user == nil && pod.Spec.SecurityContext != nil {
				user = pod.Spec.SecurityContext.RunAsUser
			}
			if user == nil || owner != nil && *owner != *user {
				return nil
			}
			owner = user
		}
	}
	return owner
}

// tokenMode is upstream's: for the group with fsGroup, for the one user, else for all users in the containers.
func tokenMode(pod *pcorev1.Pod, owner *int64) fs.FileMode {
	switch {
	case owner != nil, pod.Spec.SecurityContext != nil && pod.Spec.SecurityContext.FSGroup != nil:
		return 0o600
	}
	return 0o644
}

func mode(m *int32, otherwise fs.FileMode) fs.FileMode {
	if m == nil {
		return otherwise
	}
	return fs.FileMode(*m).Perm()
}

// hasFiles tells whether a pod has volumes that may change while it runs.
func hasFiles(pod *pcorev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil {
			return true
		}
	}
	return false
}
