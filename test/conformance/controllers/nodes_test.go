// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/pinnace-dev/pinnace/controllers/node/lifecycle"
)

// poolLabel tells whose nodes these are: every pod of a script is confined to its pool, so that scripts don't meet.
const (
	poolLabel  = "pool"
	commonPool = "common"
	// commonNodes are shared by the scripts that don't care for nodes.
	commonNodes = 3
)

// confine puts the pool's label into the node selector of each pod template.
func confine(o map[string]any, pool string) {
	spec, ok := o["spec"].(map[string]any)
	if !ok {
		return
	}
	if containers, ok := spec["containers"].([]any); ok && len(containers) > 0 {
		merge(spec, map[string]any{"nodeSelector": map[string]any{poolLabel: pool}})
		return
	}
	for _, key := range []string{"template", "jobTemplate"} {
		if nested, ok := spec[key].(map[string]any); ok {
			confine(nested, pool)
		}
	}
}

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

// heartbeat renews the leases of ours' nodes, as their agents would.
type heartbeat struct {
	mu    sync.Mutex
	nodes []string
}

var beats heartbeat

func (h *heartbeat) add(ctx context.Context, s *side, node string) {
	h.mu.Lock()
	h.nodes = append(h.nodes, node)
	h.mu.Unlock()
	beat(ctx, s, node)
}

func (h *heartbeat) run(t *testing.T, s *side) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(10 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			h.mu.Lock()
			nodes := h.nodes
			h.mu.Unlock()
			for _, n := range nodes {
				beat(ctx, s, n)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// beat renews a lease; one that fails is renewed at the next beat, long before it is missed.
func beat(ctx context.Context, s *side, node string) {
	into := s.client.Resource(leases).Namespace(lifecycle.LeaseNamespace)
	renewed := time.Now().UTC().Format(metav1.RFC3339Micro)
	_, err := into.Patch(ctx, node, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, renewed), metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, _ = into.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": node},
			"spec": map[string]any{"holderIdentity": node, "leaseDurationSeconds": int64(40), "renewTime": renewed},
		}}, metav1.CreateOptions{})
	}
}

// addNode makes a ready node of a pool.
func (s *side) addNode(ctx context.Context, name, pool, change string) error {
	into := s.client.Resource(s.resource("node"))
	o := s.in(parse(fmt.Sprintf(`
apiVersion: v1
kind: Node
metadata: {name: %s, labels: {%s: %s, kubernetes.io/hostname: %[1]s}}
`, name, poolLabel, pool)).with(change))
	taints := object{o}.at("spec.taints")
	if _, err := into.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making node %s: %w", name, err)
	}
	if s.ours {
		beats.add(ctx, s, name)
	}
	status := fmt.Sprintf(`
status:
  capacity: {cpu: "32", memory: 64Gi, pods: "500"}
  allocatable: {cpu: "32", memory: 64Gi, pods: "500"}
  conditions: [{type: Ready, status: "True", reason: KubeletReady, lastHeartbeatTime: %[1]q, lastTransitionTime: %[1]q}]
`, time.Now().UTC().Format(time.RFC3339))
	raw, err := yaml.YAMLToJSON([]byte(status))
	if err != nil {
		return err
	}
	if _, err := into.Patch(ctx, name, types.MergePatchType, raw, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("making node %s ready: %w", name, err)
	}
	// Upstream taints a new node until its controller has seen it ready.
	raw, err = yaml.Marshal(map[string]any{"spec": map[string]any{"taints": taints}})
	if err != nil {
		return err
	}
	raw, err = yaml.YAMLToJSON(raw)
	if err != nil {
		return err
	}
	_, err = into.Patch(ctx, name, types.MergePatchType, raw, metav1.PatchOptions{})
	return err
}

// node makes a ready node of the script's own; the first one moves its pods there. change is laid over the Node.
func (s *script) node(name, change string) {
	s.begin("make node %s", name)
	s.pool = s.namespace
	if change == "" {
		change = "{}"
	}
	must(s.side.addNode(s.ctx, s.nodeName(name), s.pool, change))
}

func (s *script) nodeName(name string) string { return s.namespace + "-" + name }

// patchNode changes one of the script's nodes: labels, taints, spec.unschedulable.
func (s *script) patchNode(name, change string) {
	s.begin("patch node %s", name)
	raw, err := yaml.YAMLToJSON([]byte(change))
	must(err)
	s.retry("the node is patched", func() error {
		_, err := s.side.client.Resource(s.side.resource("node")).Patch(s.ctx, s.nodeName(name), types.MergePatchType, raw, metav1.PatchOptions{})
		return err
	})
}

// on filters pods by the script's name of their node.
func (s *script) on(name string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return nodeOf(p) == s.nodeName(name) }
}

// nodeOf is the node that a pod is bound to, or meant for: a DaemonSet's pod says so in its affinity.
func nodeOf(p *corev1.Pod) string {
	if p.Spec.NodeName != "" || p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return p.Spec.NodeName
	}
	required := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil {
		return ""
	}
	for _, term := range required.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == "metadata.name" && len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return ""
}

// role is the node's name without the namespace that makes it unique.
func (s *script) role(node string) string { return strings.TrimPrefix(node, s.namespace+"-") }
