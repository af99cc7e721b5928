// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// normalisations are what the comparison doesn't look at, or looks at by its role. docs/parity.md repeats them.
var normalisations = []struct{ what, reason string }{
	{"names of pods, ReplicaSets, ControllerRevisions and of a CronJob's Jobs; hashes and UIDs in labels, selectors and statuses", "made anew for each object; each is compared by the role that it plays, such as \"the hash of deployment/web, revision 2\"."},
	{"times, resource versions, generations, messages", "made anew; whether the status is of the present generation is compared."},
	{"the node of a pod, except a DaemonSet's that isn't in the middle of a rollout", "any of equal nodes will do, and any may be first."},
	{"the conditions Ready, Reconciling and Stalled of workloads, and all of a CronJob; status.selector, columns, lastCompleteRevision, rollback and claims; annotations of ours", "extensions (see above); none of them may change what is compared."},
	{"zeroes and empty lists in a status", "upstream's serialiser leaves most of them out."},
	{"what the schema oracle compares: the defaults of a spec, and the labels by which a Job finds its pods", "that oracle's matter; the specs that controllers write are compared where a controller decides them."},
	{"the finalizers pinnace.dev/node and kubernetes.io/pvc-protection", "each side's own way to end a pod in order, and to keep a claim that is in use (see above)."},
}

// state is a namespace's final state as "deployment/web status.readyReplicas" and its value.
type state map[string]string

// snapshot takes the state of the script's namespace.
func (s *script) snapshot() state {
	out := state{}
	roles := s.roles()
	for _, kind := range watched {
		objects := s.list(kind)
		shown := make([]string, 0, len(objects))
		named := map[string]any{}
		for _, o := range objects {
			picture := s.picture(kind, o, roles)
			if role, ok := roles[kind+"/"+o.GetName()]; ok && kind != "pod" {
				named[role] = picture
				continue
			}
			raw, err := json.Marshal(picture)
			must(err)
			shown = append(shown, string(raw))
		}
		// Objects without a role of their own, pods first of all, are a multiset.
		sort.Strings(shown)
		for i, text := range shown {
			var back any
			must(json.Unmarshal([]byte(text), &back))
			named[fmt.Sprintf("%s #%d", kind, i+1)] = back
		}
		for role, picture := range named {
			flatten(out, role, "", picture)
		}
	}
	return out
}

// roles replaces what is made anew: "kind/name" of objects, hashes and UIDs, each by its role.
func (s *script) roles() map[string]string {
	roles := map[string]string{}
	put := func(kind string, o object, role string) {
		roles[kind+"/"+o.GetName()] = role
		roles[string(o.GetUID())] = "uid of " + role
	}
	for _, kind := range []string{"deployment", "statefulset", "daemonset", "cronjob", "replicationcontroller", "poddisruptionbudget", "persistentvolumeclaim"} {
		for _, o := range s.list(kind) {
			put(kind, o, kind+"/"+o.GetName())
		}
	}
	for _, o := range s.list("replicaset") {
		role := "replicaset/" + o.GetName()
		if owner := metav1.GetControllerOf(o.Unstructured); owner != nil || o.GetAnnotations()["deployment.kubernetes.io/revision"] != "" {
			of := "orphan"
			if owner != nil {
				of = strings.ToLower(owner.Kind) + "/" + owner.Name
			}
			role = fmt.Sprintf("replicaset of %s, revision %s", of, o.GetAnnotations()["deployment.kubernetes.io/revision"])
			roles[o.GetLabels()["pod-template-hash"]] = "hash of " + role
		}
		put("replicaset", o, role)
	}
	for _, o := range s.list("controllerrevision") {
		owner := "nobody"
		if ref := metav1.GetControllerOf(o.Unstructured); ref != nil {
			owner = strings.ToLower(ref.Kind) + "/" + ref.Name
		}
		role := fmt.Sprintf("controllerrevision of %s, number %d", owner, o.num("revision"))
		put("controllerrevision", o, role)
		roles[o.GetName()] = "name of " + role
		for _, key := range []string{"controller.kubernetes.io/hash", "controller-revision-hash"} {
			if hash := o.GetLabels()[key]; hash != "" {
				roles[hash] = "hash of " + role
			}
		}
	}
	number := map[string]int{}
	for _, o := range s.list("job") { // by name: a CronJob's in the order of their times
		role := "job/" + o.GetName()
		if owner := metav1.GetControllerOf(o.Unstructured); owner != nil {
			number[owner.Name]++
			role = fmt.Sprintf("job %d of %s/%s", number[owner.Name], strings.ToLower(owner.Kind), owner.Name)
		}
		put("job", o, role)
		roles[o.GetName()] = strings.TrimPrefix(role, "job/")
	}
	return roles
}

// picture is what is compared of one object.
func (s *script) picture(kind string, o object, roles map[string]string) map[string]any {
	p := map[string]any{"labels": o.GetLabels(), "annotations": annotations(o), "owners": owners(o, roles), "finalizers": finalizers(o)}
	if o.GetDeletionTimestamp() != nil {
		p["deleted"] = true
	}
	switch kind {
	case "pod":
		p["pod"] = s.podPicture(asPod(o.Unstructured))
	case "controllerrevision":
		p["revision"] = o.num("revision")
		p["images"] = images(o.at("data.spec.template.spec"))
	case "persistentvolumeclaim":
		p["spec"] = map[string]any{"accessModes": o.at("spec.accessModes"), "resources": o.at("spec.resources"), "class": o.at("spec.storageClassName")}
	default:
		p["spec"] = specPicture(o)
		p["status"] = statusPicture(o)
	}
	raw, err := json.Marshal(p)
	must(err)
	var plain any
	must(json.Unmarshal(raw, &plain))
	return replace(plain, roles).(map[string]any)
}

var uncompared = []string{
	"kubectl.kubernetes.io/last-applied-configuration", "deprecated.daemonset.template.generation", "batch.kubernetes.io/cronjob-scheduled-timestamp",
}

func annotations(o object) map[string]string {
	out := map[string]string{}
	for key, value := range o.GetAnnotations() {
		if !slices.Contains(uncompared, key) && !strings.Contains(key, "pinnace.dev/") && !strings.HasPrefix(key, "pv.kubernetes.io/") {
			out[key] = value
		}
	}
	return out
}

func owners(o object, roles map[string]string) []string {
	var out []string
	for _, ref := range o.GetOwnerReferences() {
		role, ok := roles[strings.ToLower(ref.Kind)+"/"+ref.Name]
		if !ok {
			role = strings.ToLower(ref.Kind) + "/" + ref.Name
			if ref.Kind == "Pod" {
				role = "pod"
			}
		}
		if ref.Controller != nil && *ref.Controller {
			role = "controller: " + role
		}
		if ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion {
			role += " (blocks its deletion)"
		}
		out = append(out, role)
	}
	sort.Strings(out)
	return out
}

func finalizers(o object) []string {
	out := []string{}
	for _, f := range o.GetFinalizers() {
		if f != "pinnace.dev/node" && f != "kubernetes.io/pvc-protection" {
			out = append(out, f)
		}
	}
	return out
}

func images(podSpec any) []string {
	spec, _ := podSpec.(map[string]any)
	var out []string
	for _, key := range []string{"initContainers", "containers"} {
		list, _ := spec[key].([]any)
		for _, item := range list {
			c, _ := item.(map[string]any)
			out = append(out, fmt.Sprint(c["image"]))
		}
	}
	return out
}

// specPicture is what a controller decides, or a script, of a workload's spec.
func specPicture(o object) map[string]any {
	out := map[string]any{
		"selector": o.at("spec.selector"), "templateLabels": o.at("spec.template.metadata.labels"),
		"templateAnnotations": o.at("spec.template.metadata.annotations"), "images": images(o.at("spec.template.spec")),
	}
	if o.GetKind() == "Job" { // the API server labels upstream's (see the schema oracle)
		delete(out, "selector")
		delete(out, "templateLabels")
	}
	for _, name := range []string{
		"replicas", "minReadySeconds", "paused", "revisionHistoryLimit", "progressDeadlineSeconds", "suspend", "parallelism",
		"completions", "completionMode", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "schedule",
	} {
		if value := o.at("spec." + name); value != nil {
			out[name] = value
		}
	}
	return out
}

// extensions are what only our statuses have.
var extensions = []string{"Ready", "Reconciling", "Stalled"}

func statusPicture(o object) map[string]any {
	status, _ := o.at("status").(map[string]any)
	status = runtime.DeepCopyJSON(status)
	if status == nil {
		status = map[string]any{}
	}
	if o.at("status.observedGeneration") != nil && o.GetKind() != "PodDisruptionBudget" && o.GetKind() != "Job" && o.GetKind() != "CronJob" {
		status["observed"] = observed(o) == ""
	}
	for _, name := range []string{
		"observedGeneration", "columns", "selector", "lastCompleteRevision", "rollback", "claims", "startTime", "completionTime", "lastScheduleTime", "lastSuccessfulTime",
	} {
		if _, isTime := status[name].(string); isTime && strings.HasSuffix(name, "Time") {
			status[name] = "set"
			continue
		}
		delete(status, name)
	}
	conditions := map[string]any{}
	list, _ := status["conditions"].([]any)
	for _, item := range list {
		c, _ := item.(map[string]any)
		kind := fmt.Sprint(c["type"])
		if !slices.Contains(extensions, kind) && o.GetKind() != "CronJob" { // upstream's has no conditions at all
			conditions[kind] = map[string]any{"status": c["status"], "reason": c["reason"]}
		}
	}
	status["conditions"] = conditions
	if active, ok := status["active"].([]any); ok { // of a CronJob
		status["active"] = len(active)
	}
	if disrupted, ok := status["disruptedPods"].(map[string]any); ok {
		status["disruptedPods"] = len(disrupted)
	}
	return status
}

// podPicture is what is compared of a pod.
func (s *script) podPicture(pod *corev1.Pod) map[string]any {
	out := map[string]any{
		"phase": pod.Status.Phase, "ready": isReady(pod), "image": pod.Spec.Containers[0].Image, "bound": pod.Spec.NodeName != "",
		"hostname": pod.Spec.Hostname, "subdomain": pod.Spec.Subdomain, "restartPolicy": pod.Spec.RestartPolicy,
		"gates": len(pod.Spec.SchedulingGates),
	}
	owner := metav1.GetControllerOf(pod)
	switch {
	case slices.Contains(s.own, pod.Name), owner != nil && owner.Kind == "StatefulSet":
		out["name"] = pod.Name
	case owner != nil && owner.Kind == "DaemonSet":
		if out["node"] = s.role(nodeOf(pod)); s.anyNode {
			out["node"] = "any"
		}
		out["tolerations"] = tolerations(pod)
	}
	var env []string
	for _, e := range pod.Spec.Containers[0].Env {
		from := ""
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			from = e.ValueFrom.FieldRef.FieldPath
		}
		env = append(env, e.Name+"="+e.Value+from)
	}
	out["env"] = env
	var volumes []string
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			volumes = append(volumes, v.Name+"="+v.PersistentVolumeClaim.ClaimName)
		}
	}
	out["volumes"] = volumes
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			out["disruption"] = c.Reason
		}
	}
	return out
}

func tolerations(pod *corev1.Pod) []string {
	var out []string
	for _, t := range pod.Spec.Tolerations {
		if t.TolerationSeconds == nil { // those with a time are the admission plugin's (see the schema oracle)
			out = append(out, fmt.Sprintf("%s %s %s %s", t.Key, t.Operator, t.Value, t.Effect))
		}
	}
	sort.Strings(out)
	return out
}

// replace puts roles in the place of what is made anew.
func replace(value any, roles map[string]string) any {
	switch typed := value.(type) {
	case map[string]any:
		for key, item := range typed {
			typed[key] = replace(item, roles)
		}
	case []any:
		for i := range typed {
			typed[i] = replace(typed[i], roles)
		}
	case string:
		if role, ok := roles[typed]; ok && typed != "" {
			return role
		}
		if uid.MatchString(typed) {
			return "uid of something gone"
		}
	}
	return value
}

var uid = regexp.MustCompile("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

// flatten writes a value as lines of path and value; zeroes and what is empty are left out.
func flatten(out state, role, path string, value any) {
	switch typed := value.(type) {
	case map[string]any:
		for key, item := range typed {
			next := key
			if path != "" {
				next = path + "." + key
			}
			flatten(out, role, next, item)
		}
		if path == "" {
			out[role] = "there"
		}
	case []any:
		for i, item := range typed {
			flatten(out, role, fmt.Sprintf("%s[%d]", path, i), item)
		}
	case nil:
	default:
		text := fmt.Sprint(typed)
		if text == "" || text == "0" || text == "false" {
			return
		}
		out[role+": "+path] = text
	}
}
