// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes/metrics,verbs=get

// MetricsGroup and MetricsVersion are those of what nodes and pods use: metrics.k8s.io by the suffix rule (docs/adr/0091).
const (
	MetricsGroup   = "metrics.pinnace.dev"
	MetricsVersion = "v1beta1"

	metricsBase = "/apis/" + MetricsGroup + "/" + MetricsVersion
	// askedAtOnce bounds how many agents are asked for one answer at the same time.
	askedAtOnce = 16
)

// handleMetrics adds the paths of the metrics.
func (s *Server) handleMetrics(mux *http.ServeMux) {
	s.usages = &usages{agents: s.Agents}
	for path, of := range map[string]struct {
		verb, resource string
		serve          func(*http.Request) (any, error)
	}{
		"/nodes":                              {"list", "nodes", s.listNodeMetrics},
		"/nodes/{name}":                       {"get", "nodes", s.getNodeMetrics},
		"/pods":                               {"list", "pods", s.listPodMetrics},
		"/namespaces/{namespace}/pods":        {"list", "pods", s.listPodMetrics},
		"/namespaces/{namespace}/pods/{name}": {"get", "pods", s.getPodMetrics},
	} {
		mux.HandleFunc("GET "+metricsBase+path, func(w http.ResponseWriter, r *http.Request) {
			user, err := s.Gate.Authenticate(r)
			if err == nil {
				err = s.Gate.Authorize(r.Context(), user, authorizationv1.ResourceAttributes{
					Verb: of.verb, Group: MetricsGroup, Version: MetricsVersion, Resource: of.resource,
					Namespace: r.PathValue("namespace"), Name: r.PathValue("name"),
				})
			}
			var answer any
			if err == nil && r.URL.Query().Get("watch") != "" {
				err = apierrors.NewMethodNotSupported(schema.GroupResource{Group: MetricsGroup, Resource: of.resource}, "watch")
			}
			if err == nil {
				answer, err = of.serve(r)
			}
			if err != nil {
				access.WriteError(w, err)
				return
			}
			access.WriteJSON(w, http.StatusOK, answer)
		})
	}
}

// selectors reads the selectors of a list.
func selectors(r *http.Request) (labels.Selector, fields.Selector, error) {
	byLabel, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		return nil, nil, apierrors.NewBadRequest("the labelSelector: " + err.Error())
	}
	byField, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil {
		return nil, nil, apierrors.NewBadRequest("the fieldSelector: " + err.Error())
	}
	for _, requirement := range byField.Requirements() {
		if requirement.Field != "metadata.name" && requirement.Field != "metadata.namespace" {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("the fieldSelector names %s: metrics are selected by metadata.name and metadata.namespace", requirement.Field))
		}
	}
	return byLabel, byField, nil
}

func fieldsOf(object client.Object) fields.Set {
	return fields.Set{"metadata.name": object.GetName(), "metadata.namespace": object.GetNamespace()}
}

func (s *Server) listNodeMetrics(r *http.Request) (any, error) {
	byLabel, byField, err := selectors(r)
	if err != nil {
		return nil, err
	}
	var nodes pcorev1.NodeList
	if err := s.Objects.List(r.Context(), &nodes, client.MatchingLabelsSelector{Selector: byLabel}); err != nil {
		return nil, fmt.Errorf("listing the nodes: %w", err)
	}
	var names []string
	byName := map[string]*pcorev1.Node{}
	for i := range nodes.Items {
		if node := &nodes.Items[i]; byField.Matches(fieldsOf(node)) {
			names, byName[node.Name] = append(names, node.Name), node
		}
	}
	slices.Sort(names)
	looks := s.ask(r.Context(), names)
	list := metricsv1beta1.NodeMetricsList{TypeMeta: metricsType("NodeMetricsList"), Items: []metricsv1beta1.NodeMetrics{}}
	for _, name := range names {
		if l := looks[name]; l.err == nil {
			if one, ok := nodeMetrics(byName[name], l); ok {
				list.Items = append(list.Items, one)
			}
		}
	}
	return list, nil
}

func (s *Server) getNodeMetrics(r *http.Request) (any, error) {
	node := &pcorev1.Node{}
	if err := s.Objects.Get(r.Context(), types.NamespacedName{Name: r.PathValue("name")}, node); err != nil {
		return nil, err
	}
	l := s.ask(r.Context(), []string{node.Name})[node.Name]
	if l.err != nil {
		return nil, l.err
	}
	one, ok := nodeMetrics(node, l)
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: MetricsGroup, Resource: "nodes"}, node.Name)
	}
	return one, nil
}

func (s *Server) listPodMetrics(r *http.Request) (any, error) {
	byLabel, byField, err := selectors(r)
	if err != nil {
		return nil, err
	}
	var pods pcorev1.PodList
	if err := s.Objects.List(r.Context(), &pods, client.InNamespace(r.PathValue("namespace")), client.MatchingLabelsSelector{Selector: byLabel}); err != nil {
		return nil, fmt.Errorf("listing the pods: %w", err)
	}
	var wanted []*pcorev1.Pod
	var names []string
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.NodeName == "" || pod.Status.Phase != corev1.PodRunning || !byField.Matches(fieldsOf(pod)) {
			continue
		}
		wanted = append(wanted, pod)
		if !slices.Contains(names, pod.Spec.NodeName) {
			names = append(names, pod.Spec.NodeName)
		}
	}
	slices.SortFunc(wanted, func(a, b *pcorev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	looks := s.ask(r.Context(), names)
	list := metricsv1beta1.PodMetricsList{TypeMeta: metricsType("PodMetricsList"), Items: []metricsv1beta1.PodMetrics{}}
	for _, pod := range wanted {
		if l := looks[pod.Spec.NodeName]; l.err == nil {
			if one, ok := podMetrics(pod, l); ok {
				list.Items = append(list.Items, one)
			}
		}
	}
	return list, nil
}

func (s *Server) getPodMetrics(r *http.Request) (any, error) {
	pod, err := s.pod(r)
	if err != nil {
		return nil, err
	}
	missing := apierrors.NewNotFound(schema.GroupResource{Group: MetricsGroup, Resource: "pods"}, pod.Namespace+"/"+pod.Name)
	if pod.Spec.NodeName == "" || pod.Status.Phase != corev1.PodRunning {
		return nil, missing
	}
	l := s.ask(r.Context(), []string{pod.Spec.NodeName})[pod.Spec.NodeName]
	if l.err != nil {
		return nil, l.err
	}
	one, ok := podMetrics(pod, l)
	if !ok {
		return nil, missing
	}
	return one, nil
}

// looks are two looks at a node, or why there are none.
type looks struct {
	before, now *look
	err         error
}

// ask asks the agents of the given nodes at once. A node that doesn't answer is left out of lists, and its reason logged.
func (s *Server) ask(ctx context.Context, nodes []string) map[string]looks {
	out := make(map[string]looks, len(nodes))
	var mu sync.Mutex
	var all sync.WaitGroup
	free := make(chan struct{}, askedAtOnce)
	for _, name := range nodes {
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			before, now, err := s.usages.of(ctx, name)
			if err != nil {
				logf.FromContext(ctx).V(1).Info("A node tells nothing of its usage", "node", name, "reason", err.Error())
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = looks{before, now, err}
		})
	}
	all.Wait()
	return out
}

func metricsType(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: MetricsGroup + "/" + MetricsVersion, Kind: kind}
}

// nodeMetrics is pure.
func nodeMetrics(node *pcorev1.Node, l looks) (metricsv1beta1.NodeMetrics, bool) {
	used, ok := rateOf(l.before.node, l.now.node)
	if !ok {
		return metricsv1beta1.NodeMetrics{}, false
	}
	return metricsv1beta1.NodeMetrics{
		TypeMeta:   metricsType("NodeMetrics"),
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.NewTime(used.at)},
		Timestamp:  metav1.NewTime(used.at), Window: metav1.Duration{Duration: used.window.Round(time.Millisecond)}, Usage: usageList(used),
	}, true
}

// podMetrics is pure. As upstream's metrics server it tells all of a pod's running containers or nothing. The moment is the
// earliest of the containers', the window the longest.
func podMetrics(pod *pcorev1.Pod, l looks) (metricsv1beta1.PodMetrics, bool) {
	out := metricsv1beta1.PodMetrics{
		TypeMeta:   metricsType("PodMetrics"),
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels},
	}
	var at time.Time
	var window time.Duration
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		if status.State.Running == nil {
			continue
		}
		key := containerKey{pod.Namespace, pod.Name, status.Name}
		used, ok := rateOf(l.before.containers[key], l.now.containers[key])
		if !ok {
			return metricsv1beta1.PodMetrics{}, false
		}
		if at.IsZero() || used.at.Before(at) {
			at = used.at
		}
		window = max(window, used.window)
		out.Containers = append(out.Containers, metricsv1beta1.ContainerMetrics{Name: status.Name, Usage: usageList(used)})
	}
	out.Timestamp, out.CreationTimestamp, out.Window = metav1.NewTime(at), metav1.NewTime(at), metav1.Duration{Duration: window.Round(time.Millisecond)}
	return out, len(out.Containers) > 0
}

func usageList(used rate) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(math.Ceil(used.cores*1e9)), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(used.memory), resource.BinarySI),
	}
}
