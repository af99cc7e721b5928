// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// The kinds of config that a template can refer to.
const (
	KindConfigMap = "ConfigMap"
	KindSecret    = "Secret"
)

// ConfigRef names a ConfigMap or Secret in the namespace of a pod.
type ConfigRef struct{ Kind, Name string }

// String is how a sentence names it.
func (r ConfigRef) String() string { return r.Kind + " " + r.Name }

// Need is a ConfigRef that a template refers to.
type Need struct {
	ConfigRef
	// Optional says that pods start without it, at all places where the template refers to it.
	Optional bool
}

// Needs lists the ConfigMaps and Secrets that the pods' environment and volumes refer to, each once, sorted by kind and name. What pulls
// images isn't among them: it doesn't reach the containers.
func Needs(template *pcorev1.PodTemplateSpec) []Need {
	optional := map[ConfigRef]bool{}
	visitConfig(&template.Spec.PodSpec, func(kind string, name *string, may *bool) {
		ref := ConfigRef{kind, *name}
		was, seen := optional[ref]
		optional[ref] = may != nil && *may && (was || !seen)
	})
	out := make([]Need, 0, len(optional))
	for ref, may := range optional {
		out = append(out, Need{ref, may})
	}
	slices.SortFunc(out, func(a, b Need) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return out
}

// visitConfig calls visit for each place of a pod that names a ConfigMap or Secret; visit may change the name.
func visitConfig(spec *corev1.PodSpec, visit func(kind string, name *string, optional *bool)) {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			visitEnvironment(&list[i], visit)
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.ConfigMap != nil {
			visit(KindConfigMap, &v.ConfigMap.Name, v.ConfigMap.Optional)
		}
		if v.Secret != nil {
			visit(KindSecret, &v.Secret.SecretName, v.Secret.Optional)
		}
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			if s := v.Projected.Sources[j].ConfigMap; s != nil {
				visit(KindConfigMap, &s.Name, s.Optional)
			}
			if s := v.Projected.Sources[j].Secret; s != nil {
				visit(KindSecret, &s.Name, s.Optional)
			}
		}
	}
}

func visitEnvironment(c *corev1.Container, visit func(kind string, name *string, optional *bool)) {
	for i := range c.EnvFrom {
		if r := c.EnvFrom[i].ConfigMapRef; r != nil {
			visit(KindConfigMap, &r.Name, r.Optional)
		}
		if r := c.EnvFrom[i].SecretRef; r != nil {
			visit(KindSecret, &r.Name, r.Optional)
		}
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if r := from.ConfigMapKeyRef; r != nil {
			visit(KindConfigMap, &r.Name, r.Optional)
		}
		if r := from.SecretKeyRef; r != nil {
			visit(KindSecret, &r.Name, r.Optional)
		}
	}
}

// Content says what a ConfigRef holds, without holding it.
type Content struct {
	// Digest tells one content from another.
	Digest string
	// Frozen says that the object is a snapshot itself, which a template names after a rollback on request. It is left as it is.
	Frozen bool
}

// Digest names a content: of a ConfigMap, data as text and binaryData as bytes; of a Secret, everything as bytes. It is shortened to what
// tells contents apart, about 47 bits.
func Digest(text map[string]string, bytes map[string][]byte) (string, error) {
	raw, err := json.Marshal([]any{present(text), present(bytes)})
	if err != nil {
		return "", fmt.Errorf("writing config as JSON: %w", err)
	}
	return short(raw), nil
}

// present makes an absent map and an empty one the same.
func present[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// absent stands for the content of config that isn't there and is optional: the lack of it is part of the revision, too.
const absent = "absent"

// ConfigSnapshot is a copy of config as it was, for one workload.
type ConfigSnapshot struct {
	// Kind and Name are the snapshot's own.
	ConfigRef
	// Source is what it is a copy of.
	Source ConfigRef
	// Digest is that of the content.
	Digest string
}

// Pinned is what rolloutOn: Config makes of a template. The zero value is that of a workload that doesn't use it.
type Pinned struct {
	// Template names snapshots in place of config; nil without the extension, and while config is missing.
	Template *pcorev1.PodTemplateSpec
	// Snapshots are what Template refers to, sorted like Needs.
	Snapshots []ConfigSnapshot
	// Missing says which config isn't there that the template can't do without.
	Missing error
}

// Or returns the pinned template, and the plain one where nothing is pinned.
func (p *Pinned) Or(plain *pcorev1.PodTemplateSpec) *pcorev1.PodTemplateSpec {
	if p.Template != nil {
		return p.Template
	}
	return plain
}

// Pin makes a copy of the template that names snapshots in place of the config that it refers to. owner is the workload's kind and name: two
// workloads share no snapshot, so that each can clear its own away. The content of what isn't in contents is missing.
func Pin(owner string, template *pcorev1.PodTemplateSpec, contents map[ConfigRef]Content) Pinned {
	var p Pinned
	var missing []ConfigRef
	names := map[ConfigRef]string{}
	for _, need := range Needs(template) {
		content, there := contents[need.ConfigRef]
		switch {
		case there && content.Frozen:
			continue
		case there:
			name := snapshotName(owner, need.ConfigRef, content.Digest)
			names[need.ConfigRef] = name
			p.Snapshots = append(p.Snapshots, ConfigSnapshot{ConfigRef{need.Kind, name}, need.ConfigRef, content.Digest})
		case need.Optional:
			names[need.ConfigRef] = snapshotName(owner, need.ConfigRef, absent)
		default:
			missing = append(missing, need.ConfigRef)
		}
	}
	if len(missing) > 0 {
		return Pinned{Missing: missingConfig(missing)}
	}
	p.Template = template.DeepCopy()
	visitConfig(&p.Template.Spec.PodSpec, func(kind string, name *string, _ *bool) {
		if pinned, ok := names[ConfigRef{kind, *name}]; ok {
			*name = pinned
		}
	})
	return p
}

// missingConfig is one sentence for people.
func missingConfig(missing []ConfigRef) error {
	names := make([]string, len(missing))
	for i, ref := range missing {
		names[i] = ref.String()
	}
	verb := "isn't there: the rollout waits for it"
	if len(names) > 1 {
		verb = "aren't there: the rollout waits for them"
	}
	return fmt.Errorf("%s %s", strings.Join(names, ", "), verb)
}

// snapshotName is the source's name, cut to fit, and a hash that tells owners, kinds, whole names and contents apart.
func snapshotName(owner string, source ConfigRef, digest string) string {
	suffix := "-" + short([]byte(strings.Join([]string{owner, source.Kind, source.Name, digest}, "\x00")))
	return source.Name[:min(len(source.Name), validation.DNS1123SubdomainMaxLength-len(suffix))] + suffix
}

// alphabet is upstream's for generated names: no vowels, so that no words come out.
const alphabet = "bcdfghjklmnpqrstvwxz2456789"

// short names bytes by ten characters of their SHA-256.
func short(raw []byte) string {
	sum := sha256.Sum256(raw)
	n := binary.BigEndian.Uint64(sum[:])
	var out [10]byte
	for i := range out {
		out[i] = alphabet[n%uint64(len(alphabet))]
		n /= uint64(len(alphabet))
	}
	return string(out[:])
}
