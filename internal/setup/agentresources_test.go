// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

var machineOfTest = corev1.ResourceList{
	corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	corev1.ResourcePods: resource.MustParse("110"), "hugepages-2Mi": resource.MustParse("1Gi"),
}

func TestAllocatable(t *testing.T) {
	o := newAgentResourceOptions()
	o.SystemReserved = map[string]string{"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "5Gi"}
	o.KubeReserved = map[string]string{"cpu": "250m"}
	resolved, err := o.resolve(machineOfTest)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, q := range resolved.allocatable() {
		got[string(name)] = q.String()
	}
	// Of memory go 1Gi reserved, 1Gi in huge pages and 100Mi that eviction keeps free; of disk 5Gi and 10 %.
	want := map[string]string{"cpu": "3250m", "memory": "6044Mi", "ephemeral-storage": "85Gi", "pods": "110", "hugepages-2Mi": "1Gi"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("allocatable (-want +got):\n%s", diff)
	}
}

func TestMistakesInResourceFlags(t *testing.T) {
	for want, change := range map[string]func(*AgentResourceOptions){
		`--system-reserved has "gpu"`:        func(o *AgentResourceOptions) { o.SystemReserved = map[string]string{"gpu": "1"} },
		`--kube-reserved has "much" for cpu`: func(o *AgentResourceOptions) { o.KubeReserved = map[string]string{"cpu": "much"} },
		`reserve less`:                       func(o *AgentResourceOptions) { o.KubeReserved = map[string]string{"memory": "8Gi"} },
		`--cluster-dns has "dns"`:            func(o *AgentResourceOptions) { o.ClusterDNS = []string{"dns"} },
		`--eviction-hard has`:                func(o *AgentResourceOptions) { o.Eviction.Hard = []string{"memory"} },
	} {
		o := newAgentResourceOptions()
		change(&o)
		if _, err := o.resolve(machineOfTest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestStatementsReplaceTheDefaults(t *testing.T) {
	o := newAgentResourceOptions()
	s := Statements{Of: &o.Eviction.Hard}
	if err := s.Set("memory.available<1Gi,nodefs.available<5%"); err != nil || len(o.Eviction.Hard) != 2 || s.String() != "memory.available<1Gi,nodefs.available<5%" {
		t.Errorf("%v %v", o.Eviction.Hard, err)
	}
	if err := s.Set(""); err != nil || len(o.Eviction.Hard) != 0 {
		t.Errorf("none: %v %v", o.Eviction.Hard, err)
	}
}
