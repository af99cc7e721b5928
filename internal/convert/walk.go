// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// walk goes through one document and collects edits and notes.
type walk struct {
	*converter
	document int
	edits    []edit
}

func (w *walk) note(item, format string, args ...any) {
	w.notes = append(w.notes, Note{
		Stream: w.stream.Name, Document: w.document, Item: item, Text: fmt.Sprintf(format, args...),
	})
}

// rename returns the other side's equal of a kind, and whether there is one.
func (w *walk) rename(kind schema.GroupVersionKind) (schema.GroupVersionKind, bool) {
	if w.direction == ToUpstream {
		return suffix.ToUpstream(kind)
	}
	return suffix.ToPinnace(kind)
}

// upstreamOf returns the upstream side of a kind that rename knows.
func (w *walk) upstreamOf(kind schema.GroupVersionKind) schema.GroupVersionKind {
	if w.direction == ToUpstream {
		kind, _ = suffix.ToUpstream(kind)
	}
	return kind
}

// object converts one object. The path is its place in the chunk, item its
// place in lists, and element the kind of a typed list's items, which may
// leave apiVersion and kind out.
func (w *walk) object(n *node, path, item, element string) {
	version, versions := lookup(n, "apiVersion")
	kindNode, kindCount := lookup(n, "kind")
	if element != "" && versions == 0 && kindCount == 0 {
		return
	}
	if versions > 1 || kindCount > 1 {
		w.note(item, "%s left as it is: the key apiVersion or kind stands in it twice: take one out.", describe(n))
		return
	}
	gv, err := schema.ParseGroupVersion(text(version))
	kind := text(kindNode)
	if strings.ContainsFunc(text(version), unicode.IsSpace) {
		err = errors.New("white space in an apiVersion")
	}
	if text(version) == "" || kind == "" || err != nil {
		w.note(item, "left as it is: %s.", w.notAnObject(n, text(version), kind, err))
		return
	}
	gvk := gv.WithKind(kind)
	if gvk == (schema.GroupVersionKind{Version: "v1", Kind: "List"}) {
		w.items(n, path, item, "")
		return
	}
	to, ok := w.rename(gvk)
	if single, isList := strings.CutSuffix(kind, "List"); !ok && isList {
		if to, ok = w.rename(gv.WithKind(single)); ok {
			w.items(n, path, item, single)
		}
	}
	reason := w.ownReason(n, gvk)
	if !ok && reason == "" {
		reason = w.reason(n, gvk)
	}
	if reason != "" {
		w.note(item, "%s left as it is: %s.", describe(n), reason)
		return
	}
	w.converted++
	w.edits = append(w.edits, edit{version, at(path, "apiVersion"), to.GroupVersion().String()})
	for _, reference := range suffix.References(w.upstreamOf(gvk)) {
		w.references(n, path, item, describe(n), reference, reference.Path)
	}
}

// items converts each item of a List.
func (w *walk) items(n *node, path, item, element string) {
	list, _ := lookup(n, "items")
	if list = resolve(list); list == nil || list.kind != sequence {
		return
	}
	for i, content := range list.content {
		place := strconv.Itoa(i + 1)
		if item != "" {
			place = item + "." + place
		}
		w.object(content, at(at(path, "items"), strconv.Itoa(i)), place, element)
	}
}

// references converts what a reference's path leads to below a node.
func (w *walk) references(n *node, path, item, owner string, reference suffix.Reference, rest []string) {
	n = resolve(n)
	switch {
	case n == nil:
	case len(rest) == 0:
		w.reference(n, path, item, owner, reference)
	case rest[0] == "*":
		if n.kind == sequence {
			for i, content := range n.content {
				w.references(content, at(path, strconv.Itoa(i)), item, owner, reference, rest[1:])
			}
		}
	default:
		if value, count := lookup(n, rest[0]); count == 1 {
			w.references(value, at(path, rest[0]), item, owner, reference, rest[1:])
		}
	}
}

// reference converts one reference, where it names a kind that has an equal.
func (w *walk) reference(n *node, path, item, owner string, reference suffix.Reference) {
	kindNode, _ := lookup(n, "kind")
	kind, implied := text(kindNode), false
	if kind == "" {
		kind, implied = reference.Kind, true
	}
	if reference.Form == suffix.ByAPIGroup {
		group, count := lookup(n, "apiGroup")
		if to, ok := w.renameGroup(text(group), kind); ok && count == 1 && text(group) != "" {
			w.edits = append(w.edits, edit{group, at(path, "apiGroup"), to})
		}
		return
	}
	version, count := lookup(n, "apiVersion")
	gv, err := schema.ParseGroupVersion(text(version))
	if count != 1 || err != nil || text(version) == "" {
		return
	}
	if to, ok := w.rename(gv.WithKind(kind)); ok {
		w.edits = append(w.edits, edit{version, at(path, "apiVersion"), to.GroupVersion().String()})
		return
	}
	// Where no kind is written, nobody wrote the version by hand either.
	if newer, ok := suffix.Successor(gv.WithKind(kind)); ok && !implied && w.direction == ToPinnace {
		w.note(item, "%s was converted, but its %s still names %s %s: change that apiVersion to %s first.",
			owner, strings.Join(slices.DeleteFunc(slices.Clone(reference.Path), func(s string) bool { return s == "*" }), "."),
			gv, kind, newer.GroupVersion())
	}
}

// renameGroup is rename for references that name no version.
func (w *walk) renameGroup(group, kind string) (string, bool) {
	for _, known := range suffix.Kinds() {
		from, to := known.Upstream, known.Pinnace
		if w.direction == ToUpstream {
			from, to = to, from
		}
		if from.Group == group && from.Kind == kind {
			return to.Group, true
		}
	}
	return "", false
}

// describe names an object as kubectl does: "Service/frontend".
func describe(n *node) string {
	kind, name := stringAt(n, "kind"), stringAt(n, "metadata", "name")
	switch {
	case kind == "":
		return "the document"
	case name == "":
		return kind
	}
	return kind + "/" + name
}

// notAnObject says why a document isn't a Kubernetes object.
func (w *walk) notAnObject(n *node, version, kind string, err error) string {
	missing := "it has neither apiVersion nor kind"
	switch n = resolve(n); {
	case w.isKustomizationFile():
		return kustomizationReason
	case n == nil || n.kind != mapping:
		missing = "it is no mapping of fields"
	case err != nil:
		missing = fmt.Sprintf("its apiVersion %q isn't written as group/version", version)
	case version != "":
		missing = "it has no kind"
	case kind != "":
		missing = "it has no apiVersion"
	}
	return "it is not a Kubernetes object: " + missing
}

func (w *walk) isKustomizationFile() bool {
	switch filepath.Base(w.stream.Name) {
	case "kustomization.yaml", "kustomization.yml", "Kustomization":
		return true
	}
	return false
}
