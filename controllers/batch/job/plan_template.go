// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"maps"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// indexVariable tells a container its index.
const indexVariable = "JOB_COMPLETION_INDEX"

// makeSelector is the selector that finds the Job's pods: the user's with manualSelector, else one by the Job's UID, which upstream's API
// server writes into the spec and a schema can't.
func makeSelector(job *pbatchv1.Job) (labels.Selector, error) {
	if job.Spec.ManualSelector != nil && *job.Spec.ManualSelector {
		return metav1.LabelSelectorAsSelector(job.Spec.Selector)
	}
	return labels.SelectorFromSet(labels.Set{batchv1.ControllerUidLabel: string(job.UID)}), nil
}

// makeLabels are the labels that upstream's API server adds to the template; none with manualSelector.
func makeLabels(job *pbatchv1.Job) map[string]string {
	if job.Spec.ManualSelector != nil && *job.Spec.ManualSelector {
		return nil
	}
	return map[string]string{
		"controller-uid": string(job.UID), batchv1.ControllerUidLabel: string(job.UID),
		"job-name": job.Name, batchv1.JobNameLabel: job.Name,
	}
}

// indexName is the name of a pod of one index: the lowest slot that nobody holds. A long name of the Job gives way to the index.
func indexName(owner string, uid types.UID, index int, taken map[string]bool) string {
	const room = 63 - len("-") - 5 // a host name, the dash and the suffix
	tail := "-" + strconv.Itoa(index)
	owner = owner[:min(len(owner), room-len(tail))] + tail
	for _, name := range workload.FreeNames(owner, uid, 1, taken) {
		return name
	}
	return ""
}

// makeTemplates returns the template of each wanted pod, by name. They share what is the same for all.
func makeTemplates(job *pbatchv1.Job, pods []wantedPod) map[string]*pcorev1.PodTemplateSpec {
	common := job.Spec.Template
	common.Labels = merged(job.Spec.Template.Labels, makeLabels(job))
	common.Finalizers = job.Spec.Template.Finalizers
	if !slices.Contains(common.Finalizers, batchv1.JobTrackingFinalizer) {
		common.Finalizers = append(slices.Clone(common.Finalizers), batchv1.JobTrackingFinalizer)
	}
	if indexed(job) {
		common.Spec.InitContainers = withIndexVariable(common.Spec.InitContainers)
		common.Spec.Containers = withIndexVariable(common.Spec.Containers)
	}
	out := make(map[string]*pcorev1.PodTemplateSpec, len(pods))
	for _, want := range pods {
		t := common
		if want.index != jobstate.NoIndex {
			at := map[string]string{batchv1.JobCompletionIndexAnnotation: strconv.Itoa(want.index)}
			t.Labels, t.Annotations = merged(t.Labels, at), merged(t.Annotations, at)
			t.Spec.Hostname = job.Name + "-" + strconv.Itoa(want.index)
			if perIndex(job) {
				t.Annotations = merged(t.Annotations, want.failureCounts())
			}
		}
		if want.node != "" {
			t.Spec.Affinity = workload.PinToNode(t.Spec.Affinity, want.node)
		}
		out[want.name] = &t
	}
	return out
}

// withIndexVariable returns containers that know their index, by the label of their pod. A variable of that name that the user wrote
// stays.
func withIndexVariable(containers []corev1.Container) []corev1.Container {
	out := slices.Clone(containers)
	for i := range out {
		if slices.ContainsFunc(out[i].Env, func(v corev1.EnvVar) bool { return v.Name == indexVariable }) {
			continue
		}
		out[i].Env = append(slices.Clone(out[i].Env), corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']"},
		}})
	}
	return out
}

func merged(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	out := make(map[string]string, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}
