// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// pullSecrets are the credentials for an image's registry in the pod's pull secrets, or, when it names none, in those of its service
// account.
func (r *Reconciler) pullSecrets(ctx context.Context, rec *record, pod *pcorev1.Pod, image string, since time.Time) []*runtimeapi.AuthConfig {
	names := make([]string, 0, len(pod.Spec.ImagePullSecrets))
	for _, ref := range pod.Spec.ImagePullSecrets {
		names = append(names, ref.Name)
	}
	// A static pod has no account, and a simulated node's runtime asks nobody.
	if len(names) == 0 && !rec.node.Simulated && pod.Annotations[annotationConfigSource] == "" {
		names = r.refs.accountSecrets(ctx, pod, since, r.options.Now())
	}
	var out []*runtimeapi.AuthConfig
	for _, name := range names {
		found, err := r.refs.get(ctx, "Secret", pod.Namespace, name, since, r.options.Now())
		if err != nil || found == nil {
			continue // As upstream: the pull is tried without, and fails with the registry's own words.
		}
		out = append(out, registryAuths(found.data, image)...)
	}
	return out
}

// accountSecrets are the names of the pull secrets of a pod's service account. Upstream's API server copies them into the pod.
func (r *references) accountSecrets(ctx context.Context, pod *pcorev1.Pod, since, now time.Time) []string {
	found, err := r.get(ctx, kindAccount, pod.Namespace, podstate.ServiceAccountName(pod), since, now)
	if err != nil || found == nil {
		return nil // The same as for a secret that can't be read.
	}
	return found.pullSecrets
}

// registryAuths reads a docker configuration for the image's registry.
func registryAuths(data map[string][]byte, image string) []*runtimeapi.AuthConfig {
	type login struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
	}
	var config struct {
		Auths map[string]login `json:"auths"`
	}
	if raw, ok := data[corev1.DockerConfigJsonKey]; ok {
		if json.Unmarshal(raw, &config) != nil {
			return nil
		}
	} else if raw, ok := data[corev1.DockerConfigKey]; ok && json.Unmarshal(raw, &config.Auths) != nil {
		return nil
	}
	var out []*runtimeapi.AuthConfig
	for server, l := range config.Auths {
		if !registryMatches(server, image) {
			continue
		}
		if l.Username == "" && l.Auth != "" {
			if plain, err := base64.StdEncoding.DecodeString(l.Auth); err == nil {
				l.Username, l.Password, _ = strings.Cut(string(plain), ":")
			}
		}
		out = append(out, &runtimeapi.AuthConfig{Username: l.Username, Password: l.Password, ServerAddress: loginAddress(image)})
	}
	return out
}

// loginAddress is for which host the runtime may use a login: that of the image alone. The runtime compares a URL's host, so a bare name
// would match nothing; Docker's own registry answers under another name, for which no address is given.
func loginAddress(image string) string {
	host, _, slash := strings.Cut(image, "/")
	if !slash || !strings.ContainsAny(host, ".:") && host != "localhost" || host == "docker.io" || host == "index.docker.io" {
		return ""
	}
	return "https://" + host
}

// registryMatches tells whether a login, by host and perhaps a path, is for the image.
func registryMatches(server, image string) bool {
	if parsed, err := url.Parse(server); err == nil && parsed.Host != "" {
		server = parsed.Host + parsed.Path
	}
	server = strings.TrimSuffix(server, "/")
	first, _, slash := strings.Cut(image, "/")
	if !slash || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return strings.HasPrefix(server, "index.docker.io") || strings.HasPrefix(server, "docker.io")
	}
	return image == server || strings.HasPrefix(image, server+"/")
}
