// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Variable is one name and value of the environment.
type Variable struct{ Name, Value string }

// Objects is what references point to, by name, in the pod's namespace. An object that isn't there has no entry.
type Objects struct {
	ConfigMaps map[string]map[string]string
	Secrets    map[string]map[string][]byte
	// File reads a file of a volume of the pod; there is false when it doesn't exist. Nil: the pod has no files.
	File func(volume, path string) (text string, there bool, err error)
}

// Reference names an object that a container's environment needs.
type Reference struct {
	// Kind is ConfigMap or Secret.
	Kind, Name string
	// Optional says that the container starts without it too.
	Optional bool
}

// References lists the objects that the container's environment refers to, each once.
func References(c *corev1.Container) []Reference {
	var out []Reference
	seen := map[Reference]bool{}
	add := func(kind, name string, optional *bool) {
		r := Reference{Kind: kind, Name: name, Optional: optional != nil && *optional}
		if name != "" && !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	for _, from := range c.EnvFrom {
		if r := from.ConfigMapRef; r != nil {
			add("ConfigMap", r.Name, r.Optional)
		}
		if r := from.SecretRef; r != nil {
			add("Secret", r.Name, r.Optional)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
			add("ConfigMap", r.Name, r.Optional)
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil {
			add("Secret", r.Name, r.Optional)
		}
	}
	return out
}

// Make puts the environment together: envFrom in order, then env in order, later ones winning; a value may use the
// variables before it. services are the variables of the namespace's services, which stand behind all others. An error is a
// mistake in the pod or a missing object, in a sentence for the user.
func Make(c *corev1.Container, pod *Downward, objects Objects, services []Variable) ([]Variable, error) {
	env := environment{values: map[string]string{}}
	for _, v := range services {
		env.set(v.Name, v.Value)
	}
	for _, from := range c.EnvFrom {
		if err := env.addFrom(from, pod.Namespace(), objects); err != nil {
			return nil, err
		}
	}
	for _, e := range c.Env {
		value, found, err := env.valueOf(e, c, pod, objects)
		if err != nil {
			return nil, err
		}
		if found {
			env.set(e.Name, value)
		}
	}
	out := make([]Variable, 0, len(env.order))
	for _, name := range env.order {
		out = append(out, Variable{Name: name, Value: env.values[name]})
	}
	return out, nil
}

type environment struct {
	order  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, there := e.values[name]; !there {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

func (e *environment) addFrom(from corev1.EnvFromSource, namespace string, objects Objects) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		found, ok := objects.ConfigMaps[from.ConfigMapRef.Name]
		if !ok && !isTrue(from.ConfigMapRef.Optional) {
			return missing("ConfigMap", namespace, from.ConfigMapRef.Name)
		}
		data = found
	case from.SecretRef != nil:
		found, ok := objects.Secrets[from.SecretRef.Name]
		if !ok && !isTrue(from.SecretRef.Optional) {
			return missing("Secret", namespace, from.SecretRef.Name)
		}
		for key, value := range found {
			data[key] = string(value)
		}
	}
	keys := make([]string, 0, len(data))
	for key := range data {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		// Upstream takes any printable name without "=" since 1.34; what can't be an environment variable is left out.
		if name := from.Prefix + key; name != "" && !strings.ContainsAny(name, "=\x00") {
			e.set(name, data[key])
		}
	}
	return nil
}

func (e *environment) valueOf(v corev1.EnvVar, c *corev1.Container, pod *Downward, objects Objects) (value string, found bool, err error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return Expand(v.Value, func(name string) (string, bool) { found, ok := e.values[name]; return found, ok }), true, nil
	case from.FieldRef != nil:
		value, err = pod.Field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = pod.Resource(from.ResourceFieldRef, c.Name)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		data, there := objects.ConfigMaps[r.Name]
		if value, found = data[r.Key]; found || isTrue(r.Optional) {
			return value, found, nil
		}
		if !there {
			return "", false, missing("ConfigMap", pod.Namespace(), r.Name)
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace(), r.Name)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		data, there := objects.Secrets[r.Name]
		raw, found := data[r.Key]
		if found || isTrue(r.Optional) {
			return string(raw), found, nil
		}
		if !there {
			return "", false, missing("Secret", pod.Namespace(), r.Name)
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace(), r.Name)
	case from.FileKeyRef != nil:
		return fileValue(from.FileKeyRef, objects)
	}
	return "", false, fmt.Errorf("the source of the environment variable %s is not supported: use value, configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef or fileKeyRef", v.Name)
}

func fileValue(r *corev1.FileKeySelector, objects Objects) (value string, found bool, err error) {
	if objects.File == nil {
		return "", false, fmt.Errorf("fileKeyRef: this node has no files for volume %q", r.VolumeName)
	}
	text, there, err := objects.File(r.VolumeName, r.Path)
	if err != nil {
		return "", false, fmt.Errorf("fileKeyRef: reading %s of volume %q: %w", r.Path, r.VolumeName, err)
	}
	if there {
		if value, found, err = FileValue(text, r.Key); err != nil {
			return "", false, fmt.Errorf("fileKeyRef: %s of volume %q: %w", r.Path, r.VolumeName, err)
		}
	}
	switch {
	case found || isTrue(r.Optional):
		return value, found, nil
	case !there:
		return "", false, fmt.Errorf("fileKeyRef: volume %q has no file %s: let an init container write it, or mark the reference optional", r.VolumeName, r.Path)
	}
	return "", false, fmt.Errorf("fileKeyRef: %s of volume %q has no key %s: write it, or mark the reference optional", r.Path, r.VolumeName, r.Key)
}

func missing(kind, namespace, name string) error {
	return fmt.Errorf("%s %q not found in namespace %s, neither Pinnace's nor the native one: create it, or mark the reference optional",
		strings.ToLower(kind), name, namespace)
}

func isTrue(b *bool) bool { return b != nil && *b }
