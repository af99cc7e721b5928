// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

const kustomizationReason = "it is a kustomization, which names files and patches: convert what `kubectl kustomize` prints"

// nativeSecretTypes are Secrets that only the API server's own loops fill or
// read, so that a Pinnace Secret of that type would be a dead letter.
var nativeSecretTypes = map[string]string{
	"kubernetes.io/service-account-token": "the API server's token controller fills only its own Secrets of type %s",
	"bootstrap.kubernetes.io/token":       "the API server reads only its own Secrets of type %s",
}

// ownReason says why an object stays as it is although its kind has an equal.
func (w *walk) ownReason(n *node, gvk schema.GroupVersionKind) string {
	if w.direction == ToPinnace && gvk.Group == "" && gvk.Kind == "Secret" {
		secretType := stringAt(n, "type")
		if reason, ok := nativeSecretTypes[secretType]; ok {
			return fmt.Sprintf(reason, secretType)
		}
	}
	return ""
}

// reason says why an object whose kind has no equal stays as it is.
func (w *walk) reason(n *node, gvk schema.GroupVersionKind) string {
	newer, hasNewer := suffix.Successor(gvk)
	switch {
	case strings.HasSuffix(gvk.Group, ".kustomize.config.k8s.io") || gvk.Group == "kustomize.config.k8s.io":
		return kustomizationReason
	case w.direction == ToUpstream && suffix.IsPinnaceGroup(gvk.Group):
		return fmt.Sprintf("Pinnace has no kind %s in %s", gvk.Kind, gvk.GroupVersion())
	case w.direction == ToUpstream && isUpstreamGroup(gvk.Group):
		return fmt.Sprintf("it is upstream's already (%s)", gvk.GroupVersion())
	case suffix.IsPinnaceGroup(gvk.Group):
		return fmt.Sprintf("it is Pinnace's already (%s)", gvk.GroupVersion())
	case suffix.Native(gvk):
		return fmt.Sprintf("Pinnace uses the API server's own %s", gvk.Kind) + nativeAdvice(n, gvk)
	case hasNewer:
		return fmt.Sprintf("Pinnace has no %s of %s: change apiVersion to %s first, and the fields that differ there",
			gvk.Kind, gvk.GroupVersion(), newer.GroupVersion())
	case isUpstreamGroup(gvk.Group):
		return fmt.Sprintf("Pinnace has no kind %s of %s", gvk.Kind, gvk.GroupVersion())
	}
	return fmt.Sprintf("Pinnace carries no kind of the group %s", gvk.Group) + mentions(n)
}

// isUpstreamGroup tells whether Kubernetes itself serves a group.
func isUpstreamGroup(group string) bool {
	return group == "extensions" || group == "resource.k8s.io" || suffix.Native(schema.GroupVersionKind{Group: group}) ||
		slices.ContainsFunc(suffix.Kinds(), func(kind suffix.Kind) bool { return kind.Upstream.Group == group })
}

// nativeAdvice adds what a reader must do beside an object that rightly stays
// as it is, since the objects around it move.
func nativeAdvice(n *node, gvk schema.GroupVersionKind) string {
	switch gvk.Kind {
	case "Role", "ClusterRole":
		if groups := roleGroups(n); len(groups) > 0 {
			return fmt.Sprintf("; its rules name kinds that Pinnace carries: add %s to their apiGroups where they should hold for Pinnace's objects too",
				strings.Join(groups, ", "))
		}
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService":
		return "; where it names a Service, that one must be the API server's own, since the API server calls no other"
	}
	return ""
}

// roleGroups returns the Pinnace groups of the kinds that a role's rules name.
func roleGroups(n *node) []string {
	rules, _ := lookup(n, "rules")
	if rules = resolve(rules); rules == nil || rules.kind != sequence {
		return nil
	}
	var groups []string
	for _, rule := range rules.content {
		apiGroups, resources := stringsAt(rule, "apiGroups"), stringsAt(rule, "resources")
		for _, kind := range suffix.Kinds() {
			named := slices.ContainsFunc(resources, func(resource string) bool {
				name, _, _ := strings.Cut(resource, "/") // "pods/log" is about pods
				return name == kind.Resource || name == "*"
			})
			covered := slices.Contains(apiGroups, "*") || slices.Contains(apiGroups, kind.Pinnace.Group)
			if named && !covered && slices.Contains(apiGroups, kind.Upstream.Group) && !slices.Contains(groups, kind.Pinnace.Group) {
				groups = append(groups, kind.Pinnace.Group)
			}
		}
	}
	return groups
}

func stringsAt(n *node, key string) []string {
	list, _ := lookup(n, key)
	if list = resolve(list); list == nil || list.kind != sequence {
		return nil
	}
	var values []string
	for _, item := range list.content {
		// Upstream's nameless group is a string too.
		if item = resolve(item); item != nil && item.kind == scalar && item.tag == "!!str" {
			values = append(values, item.text)
		}
	}
	return values
}

// mentions finds the first place in an object of another group that names a
// kind which has a Pinnace equal, such as the target of a scaler: only a human
// knows which of the two it should name now.
func mentions(n *node) string {
	found := ""
	budget := maxValues
	var search func(n *node, path string, depth int)
	search = func(n *node, path string, depth int) {
		budget--
		if n = resolve(n); n == nil || found != "" || depth > maxDepth || budget < 0 {
			return
		}
		gvk := schema.FromAPIVersionAndKind(stringAt(n, "apiVersion"), stringAt(n, "kind"))
		if to, ok := suffix.ToPinnace(gvk); ok && depth > 0 {
			found = fmt.Sprintf("; its %s names %s of %s: where that one is converted, change it to %s by hand",
				path, gvk.Kind, gvk.GroupVersion(), to.GroupVersion())
			return
		}
		if n.kind == sequence {
			for _, item := range n.content {
				search(item, path, depth+1)
			}
			return
		}
		for _, f := range fields(n) {
			search(f.value, strings.TrimPrefix(path+"."+f.key, "."), depth+1)
		}
	}
	search(n, "", 0)
	return found
}
