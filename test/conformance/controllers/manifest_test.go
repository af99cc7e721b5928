// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// manifest is an object in upstream's kind.
type manifest map[string]any

func (m manifest) gvk() schema.GroupVersionKind {
	return (&unstructured.Unstructured{Object: m}).GroupVersionKind()
}

// translated applies the suffix rule in one direction, to the object and to what it refers to.
func (m manifest) translated(upstream schema.GroupVersionKind, rule func(schema.GroupVersionKind) (schema.GroupVersionKind, bool)) manifest {
	out := manifest(runtime.DeepCopyJSON(m))
	translate(out, "", rule)
	for _, reference := range suffix.References(upstream) {
		if reference.Form == suffix.ByAPIVersion {
			eachAt(map[string]any(out), reference.Path, func(found map[string]any) { translate(found, reference.Kind, rule) })
		}
	}
	return out
}

// eachAt calls visit on every mapping that the path leads to; "*" is every item of a list.
func eachAt(value any, path []string, visit func(map[string]any)) {
	switch typed := value.(type) {
	case map[string]any:
		if len(path) == 0 {
			visit(typed)
		} else if next, ok := typed[path[0]]; ok {
			eachAt(next, path[1:], visit)
		}
	case []any:
		if len(path) > 0 && path[0] == "*" {
			for _, item := range typed {
				eachAt(item, path[1:], visit)
			}
		}
	}
}

func translate(in map[string]any, kind string, rule func(schema.GroupVersionKind) (schema.GroupVersionKind, bool)) {
	if written, ok := in["kind"].(string); ok {
		kind = written
	}
	version, _ := in["apiVersion"].(string)
	if to, ok := rule(schema.FromAPIVersionAndKind(version, kind)); ok && version != "" {
		in["apiVersion"] = to.GroupVersion().String()
	}
}

// parse reads one YAML document, or panics: manifests stand in the scenarios.
func parse(text string) manifest {
	out := manifest{}
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, text))
	}
	return out
}

// with lays YAML over a manifest as a merge patch does: mappings are merged, lists replaced, null takes away.
func (m manifest) with(changes ...string) manifest {
	out := runtime.DeepCopyJSON(m)
	for _, change := range changes {
		merge(out, parse(change))
	}
	return out
}

func merge(into, patch map[string]any) {
	for key, value := range patch {
		nested, isMap := value.(map[string]any)
		switch present, ok := into[key].(map[string]any); {
		case value == nil:
			delete(into, key)
		case isMap && ok:
			merge(present, nested)
		case isMap:
			fresh := map[string]any{}
			merge(fresh, nested)
			into[key] = fresh
		default:
			into[key] = value
		}
	}
}

// failure is how a script ends early.
type failure struct{ sentence string }

func must(err error) {
	if err != nil {
		panic(failure{err.Error()})
	}
}

// image is the change of a template to one container with that image.
func image(name string) string {
	return "spec: {template: {spec: {containers: [{name: main, image: '" + name + "'}]}}}"
}

// workload is a manifest with a template; its pods carry the label app with the object's name.
func workload(apiVersion, kind, name string, changes []string) manifest {
	m := parse(fmt.Sprintf(`
apiVersion: %s
kind: %s
metadata: {name: %s, labels: {app: %[3]s}}
spec:
  selector: {matchLabels: {app: %[3]s}}
  template:
    metadata: {labels: {app: %[3]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "app:1"}]
`, apiVersion, kind, name))
	return m.with(changes...)
}

func deployment(name string, changes ...string) manifest {
	return workload("apps/v1", "Deployment", name, append([]string{"spec: {replicas: 3}"}, changes...))
}

func replicaSet(name string, changes ...string) manifest {
	return workload("apps/v1", "ReplicaSet", name, append([]string{"spec: {replicas: 3}"}, changes...))
}

func replicationController(name string, changes ...string) manifest {
	return workload("v1", "ReplicationController", name, append([]string{
		"spec: {replicas: 3, selector: {matchLabels: null, app: " + name + "}}",
	}, changes...))
}

func statefulSet(name string, changes ...string) manifest {
	return workload("apps/v1", "StatefulSet", name, append([]string{"spec: {replicas: 3, serviceName: " + name + "}"}, changes...))
}

func daemonSet(name string, changes ...string) manifest {
	return workload("apps/v1", "DaemonSet", name, changes)
}

// untilPatched keeps pods from being available until the script patches it, so that a busy machine can't miss that they aren't. A
// Deployment's deadline for progress, 600 s, must be longer.
const untilPatched = "spec: {minReadySeconds: 300}"

// job runs tasks that wait for the script to end them.
func job(name string, changes ...string) manifest {
	return workload("batch/v1", "Job", name, append([]string{
		"spec: {selector: null, template: {spec: {restartPolicy: Never, containers: [{name: main, image: 'task:1'}]}}}",
	}, changes...))
}

// cronJob makes jobs whose pods end at once.
func cronJob(name, schedule string, changes ...string) manifest {
	m := parse(fmt.Sprintf(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: %s, labels: {app: %[1]s}}
spec:
  schedule: %q
  jobTemplate:
    metadata: {labels: {app: %[1]s}}
    spec:
      template:
        metadata: {labels: {app: %[1]s}}
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 1
          containers: [{name: main, image: "task:1"}]
`, name, schedule))
	return m.with(changes...)
}

func budget(name, app string, changes ...string) manifest {
	return parse(fmt.Sprintf(`
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: %s}
spec: {selector: {matchLabels: {app: %s}}}
`, name, app)).with(changes...)
}

func barePod(name string, changes ...string) manifest {
	return parse(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: "app:1"}]}
`, name)).with(changes...)
}

// claims is a claim template of a StatefulSet.
const claims = `spec:
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}`

// kinds by the name that scripts call them, and the resource that they are.
var resources = map[string]suffix.Kind{}

func init() {
	for _, kind := range suffix.Kinds() {
		resources[strings.ToLower(kind.Upstream.Kind)] = kind
	}
}
