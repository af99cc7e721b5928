// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sort"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-tools/pkg/crd"
	"sigs.k8s.io/yaml"
)

// A PodSpec's CEL rules would be compiled once for each of the eight kinds that hold one, and would run on every
// write of a pod's status: 56 MB and 5 ms a write were measured (docs/adr/0020-schema-budget.md). So they are taken
// out of the schemas and written as one admission policy, which looks at every pod and template, and only when a
// person writes it. The overlay still says them once, by Go type.

// podSpecPaths is where the kinds hold a PodSpec.
var podSpecPaths = map[string]string{
	"Pod":                   "spec",
	"ReplicationController": "spec.template.spec",
	"Deployment":            "spec.template.spec",
	"ReplicaSet":            "spec.template.spec",
	"StatefulSet":           "spec.template.spec",
	"DaemonSet":             "spec.template.spec",
	"Job":                   "spec.template.spec",
	"CronJob":               "spec.jobTemplate.spec.template.spec",
}

// hoisted is a rule and the places in a PodSpec where it holds.
type hoisted struct {
	rule  apiextensionsv1.ValidationRule
	paths []string
}

// hoist takes the rules out of a PodSpec's schema, in the order of their first path.
func hoist(podSpec *apiextensionsv1.JSONSchemaProps) []hoisted {
	found := map[string]*hoisted{}
	var order []string
	var walk func(node *apiextensionsv1.JSONSchemaProps, path string)
	walk = func(node *apiextensionsv1.JSONSchemaProps, path string) {
		for _, rule := range node.XValidations {
			if found[rule.Rule] == nil {
				found[rule.Rule] = &hoisted{rule: rule}
				order = append(order, rule.Rule)
			}
			found[rule.Rule].paths = append(found[rule.Rule].paths, path)
		}
		if node.Items != nil {
			walk(node.Items.Schema, path+"[]")
		}
		if node.AdditionalProperties != nil && node.AdditionalProperties.Schema != nil {
			walk(node.AdditionalProperties.Schema, path+"{}")
		}
		for _, name := range sortedKeys(node.Properties) {
			property := node.Properties[name]
			walk(&property, strings.TrimPrefix(path+"."+name, "."))
		}
	}
	walk(podSpec, "")
	crd.EditSchema(podSpec, ruleDropper{})
	rules := make([]hoisted, 0, len(order))
	for _, key := range order {
		rules = append(rules, *found[key])
	}
	return rules
}

// expression is a CEL expression over variables.podSpec that is true when the rule holds at all its places.
func (h hoisted) expression() string {
	// Containers and init containers share their rules; variables.containers holds both.
	seen := map[string]bool{}
	var parts []string
	for _, path := range h.paths {
		at, rest := "variables.podSpec", path
		if tail, ok := strings.CutPrefix(path, "initContainers[]"); ok {
			at, rest = "variables.containers", "[]"+tail
		} else if tail, ok := strings.CutPrefix(path, "containers[]"); ok {
			at, rest = "variables.containers", "[]"+tail
		}
		part := within(at, rest, h.rule.Rule, 0)
		if !seen[part] {
			seen[part] = true
			parts = append(parts, part)
		}
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, ") && (") + ")"
}

// within wraps a rule so that it is asked of each node at a path below an expression. A rule calls its node self.
func within(at, path, rule string, depth int) string {
	variable := fmt.Sprintf("v%d", depth)
	switch {
	case path == "":
		return "[" + at + "].all(self, " + rule + ")"
	case path == "[]":
		return at + ".all(self, " + rule + ")"
	case strings.HasPrefix(path, "[]"):
		return at + ".all(" + variable + ", " + within(variable, path[2:], rule, depth+1) + ")"
	case strings.HasPrefix(path, "{}"):
		return at + ".all(" + variable + ", " + within(at+"["+variable+"]", path[2:], rule, depth+1) + ")"
	}
	path = strings.TrimPrefix(path, ".")
	name, rest := path, ""
	if end := strings.IndexAny(path, ".[{"); end >= 0 {
		name, rest = path[:end], path[end:]
	}
	field := at + "." + name
	return "!has(" + field + ") || " + within(field, rest, rule, depth)
}

// message is the rule's message with its places, so that a person knows where to look.
func (h hoisted) message() string {
	text := h.rule.Message
	if text == "" {
		text = "failed rule: " + h.rule.Rule
	}
	var places []string
	for _, path := range h.paths {
		if path != "" && !strings.HasPrefix(path, "initContainers[]") {
			places = append(places, path)
		}
	}
	switch {
	case len(places) == 0:
		return text
	case len(places) > 3:
		places = append(places[:2:2], "…")
	}
	return strings.Join(places, ", ") + ": " + text
}

// podRule is a rule at the top of the Pod kind as an expression over object and oldObject.
func podRule(rule apiextensionsv1.ValidationRule) string {
	expression := "[object].all(self, " + rule.Rule + ")"
	switch {
	case rule.OptionalOldSelf != nil && *rule.OptionalOldSelf:
		return "[oldObject == null ? optional.none() : optional.of(oldObject)].all(oldSelf, " + expression + ")"
	case strings.Contains(rule.Rule, "oldSelf"):
		return "oldObject == null || [oldObject].all(oldSelf, " + expression + ")"
	default:
		return expression
	}
}

type check map[string]any

// podPolicies writes the admission policies of the rules that were taken out of the schemas.
func podPolicies(specRules []hoisted, podRules apiextensionsv1.ValidationRules) ([]byte, error) {
	kinds := make([]string, 0, len(podSpecPaths))
	for kind := range podSpecPaths {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	var validations []check
	for _, rule := range specRules {
		validations = append(validations, check{"expression": rule.expression(), "message": rule.message()})
	}
	specs := policy{
		Name: "pinnace-pod-specs",
		Resources: []resourceRule{
			{"core.pinnace.dev", []string{"pods", "replicationcontrollers"}},
			{"apps.pinnace.dev", []string{"deployments", "replicasets", "statefulsets", "daemonsets"}},
			{"batch.pinnace.dev", []string{"jobs", "cronjobs"}},
		},
		Conditions: []map[string]string{
			notByController,
			{"name": "changed", "expression": "oldObject == null || object.?spec != oldObject.?spec"},
			// Upstream takes a replication controller without a template, and refuses the others in its schema.
			{"name": "template", "expression": "object.kind == 'Pod' || object.kind == 'CronJob' || object.?spec.?template.?spec.hasValue()"},
		},
		Variables: []map[string]string{
			{"name": "podSpec", "expression": "object.kind == 'Pod' ? object.spec : object.kind == 'CronJob' ? object.spec.jobTemplate.spec.template.spec : object.spec.template.spec"},
			{"name": "containers", "expression": "variables.podSpec.?containers.orValue([]) + variables.podSpec.?initContainers.orValue([])"},
		},
		Validations: validations,
	}
	pods := policy{
		Name:       "pinnace-pods",
		Resources:  []resourceRule{{"core.pinnace.dev", []string{"pods"}}},
		Conditions: []map[string]string{notByController},
	}
	for _, rule := range podRules {
		pods.Validations = append(pods.Validations, check{"expression": podRule(rule), "message": rule.Message})
	}
	out := []byte("# Code generated by hack/schema. DO NOT EDIT.\n# The CEL rules of pods and pod templates, which would cost too much as a part of eight schemas.\n")
	for i, p := range []policy{specs, pods} {
		if len(p.Validations) == 0 {
			continue
		}
		for j, object := range p.objects() {
			raw, err := yaml.Marshal(object)
			if err != nil {
				return nil, fmt.Errorf("encoding the policy %s: %w", p.Name, err)
			}
			if i+j > 0 {
				out = append(out, "---\n"...)
			}
			out = append(out, raw...)
		}
	}
	return out, nil
}

// notByController leaves out what Pinnace's own processes write: a template was looked at when a person wrote it.
var notByController = map[string]string{
	"name": "person",
	"expression": "!request.userInfo.username.startsWith('system:pinnace:') && " +
		"request.userInfo.username != 'system:serviceaccount:pinnace-system:pinnace-manager'",
}

type resourceRule struct {
	group     string
	resources []string
}

type policy struct {
	Name        string
	Resources   []resourceRule
	Conditions  []map[string]string
	Variables   []map[string]string
	Validations []check
}

// objects are the policy and its binding.
func (p policy) objects() []map[string]any {
	metadata := map[string]any{"name": p.Name, "labels": map[string]any{partOfLabel: partOf}}
	var rules []map[string]any
	for _, rule := range p.Resources {
		rules = append(rules, map[string]any{
			"apiGroups": []string{rule.group}, "apiVersions": []string{"*"}, "resources": rule.resources,
			"operations": []string{"CREATE", "UPDATE"},
		})
	}
	spec := map[string]any{
		"failurePolicy":    "Fail",
		"matchConstraints": map[string]any{"resourceRules": rules},
		"matchConditions":  p.Conditions,
		"validations":      p.Validations,
	}
	if len(p.Variables) > 0 {
		spec["variables"] = p.Variables
	}
	const apiVersion = "admissionregistration.k8s.io/v1"
	return []map[string]any{
		{"apiVersion": apiVersion, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec},
		{"apiVersion": apiVersion, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata,
			"spec": map[string]any{"policyName": p.Name, "validationActions": []string{"Deny"}}},
	}
}
