// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func TestQOSClass(t *testing.T) {
	of := func(requests, limits corev1.ResourceList) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
	}
	full := list("cpu", "1", "memory", "1Gi")
	for name, tc := range map[string]struct {
		containers []corev1.Container
		want       corev1.PodQOSClass
	}{
		"nothing":                   {[]corev1.Container{of(nil, nil)}, corev1.PodQOSBestEffort},
		"zero is nothing":           {[]corev1.Container{of(list("cpu", "0"), nil)}, corev1.PodQOSBestEffort},
		"equal":                     {[]corev1.Container{of(full, full)}, corev1.PodQOSGuaranteed},
		"limits alone are requests": {[]corev1.Container{of(nil, full)}, corev1.PodQOSGuaranteed},
		"one container without":     {[]corev1.Container{of(full, full), of(nil, nil)}, corev1.PodQOSBurstable},
		"only memory":               {[]corev1.Container{of(list("memory", "1Gi"), list("memory", "1Gi"))}, corev1.PodQOSBurstable},
		"lower request":             {[]corev1.Container{of(list("cpu", "500m", "memory", "1Gi"), full)}, corev1.PodQOSBurstable},
	} {
		t.Run(name, func(t *testing.T) {
			if got := QOSClass(&corev1.PodSpec{Containers: tc.containers}); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func running(name string, ready bool) corev1.ContainerStatus {
	started := true
	return corev1.ContainerStatus{Name: name, Ready: ready, Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func ended(name string, code int32, reason string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: code == 0, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}}
}

func waiting(name, reason string, last *corev1.ContainerStateTerminated) corev1.ContainerStatus {
	return corev1.ContainerStatus{
		Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		LastTerminationState: corev1.ContainerState{Terminated: last}, RestartCount: 2,
	}
}

func TestPhase(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	spec := func(policy corev1.RestartPolicy, init, main int) *corev1.PodSpec {
		s := &corev1.PodSpec{RestartPolicy: policy}
		for i := range init {
			s.InitContainers = append(s.InitContainers, corev1.Container{Name: "i" + string(rune('0'+i))})
		}
		for i := range main {
			s.Containers = append(s.Containers, corev1.Container{Name: "m" + string(rune('0'+i))})
		}
		return s
	}
	sidecar := spec(corev1.RestartPolicyAlways, 1, 1)
	sidecar.InitContainers[0].RestartPolicy = &always
	crash := &corev1.ContainerStateTerminated{ExitCode: 1}
	type statuses = []corev1.ContainerStatus
	for name, tc := range map[string]struct {
		spec                  *corev1.PodSpec
		init, main            statuses
		terminal, initialized bool
		want                  corev1.PodPhase
	}{
		"nothing known":                         {spec: spec("", 0, 1), want: corev1.PodPending},
		"creating":                              {spec: spec("", 0, 1), main: statuses{waiting("m0", "ContainerCreating", nil)}, want: corev1.PodPending},
		"running":                               {spec: spec("", 0, 1), main: statuses{running("m0", false)}, want: corev1.PodRunning},
		"one of two creating":                   {spec: spec("", 0, 2), main: statuses{running("m0", true), waiting("m1", "ContainerCreating", nil)}, want: corev1.PodPending},
		"back-off":                              {spec: spec("", 0, 1), main: statuses{waiting("m0", "CrashLoopBackOff", crash)}, want: corev1.PodRunning},
		"always, ended":                         {spec: spec(corev1.RestartPolicyAlways, 0, 1), main: statuses{ended("m0", 0, "")}, want: corev1.PodRunning},
		"never, all well":                       {spec: spec(corev1.RestartPolicyNever, 0, 2), main: statuses{ended("m0", 0, ""), ended("m1", 0, "")}, want: corev1.PodSucceeded},
		"never, one failed":                     {spec: spec(corev1.RestartPolicyNever, 0, 2), main: statuses{ended("m0", 0, ""), ended("m1", 1, "")}, want: corev1.PodFailed},
		"on failure, failed":                    {spec: spec(corev1.RestartPolicyOnFailure, 0, 1), main: statuses{ended("m0", 1, "")}, want: corev1.PodRunning},
		"always, but the pod ends":              {spec: spec(corev1.RestartPolicyAlways, 0, 1), main: statuses{ended("m0", 0, "")}, terminal: true, want: corev1.PodSucceeded},
		"init runs":                             {spec: spec("", 1, 1), init: statuses{running("i0", false)}, main: statuses{waiting("m0", "PodInitializing", nil)}, want: corev1.PodPending},
		"init failed for good":                  {spec: spec(corev1.RestartPolicyNever, 1, 1), init: statuses{ended("i0", 1, "")}, main: statuses{waiting("m0", "PodInitializing", nil)}, want: corev1.PodFailed},
		"init failed, tried again":              {spec: spec(corev1.RestartPolicyOnFailure, 1, 1), init: statuses{waiting("i0", "CrashLoopBackOff", crash)}, main: statuses{waiting("m0", "PodInitializing", nil)}, want: corev1.PodPending},
		"sidecar starts":                        {spec: sidecar, init: statuses{waiting("i0", "PodInitializing", nil)}, main: statuses{waiting("m0", "PodInitializing", nil)}, want: corev1.PodPending},
		"sidecar restarts under a running main": {spec: sidecar, init: statuses{waiting("i0", "CrashLoopBackOff", crash)}, main: statuses{running("m0", true)}, initialized: true, want: corev1.PodRunning},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Phase(tc.spec, tc.init, tc.main, tc.terminal, tc.initialized); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestColumns(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	two := corev1.PodSpec{Containers: []corev1.Container{{Name: "m0"}, {Name: "m1"}}}
	withInit := corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i0"}, {Name: "side", RestartPolicy: &always}}, Containers: []corev1.Container{{Name: "m0"}}}
	isReady := []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}
	type statuses = []corev1.ContainerStatus
	for name, tc := range map[string]struct {
		spec     corev1.PodSpec
		status   corev1.PodStatus
		deleting bool
		want     []string
	}{
		"new":     {spec: two, want: []string{"0/2", "Pending", "0"}},
		"running": {two, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, ContainerStatuses: statuses{running("m0", true), running("m1", true)}}, false, []string{"2/2", "Running", "0"}},
		"one done, one runs": {two, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, ContainerStatuses: statuses{ended("m0", 0, "Completed"), running("m1", true)}}, false,
			[]string{"1/2", "Running", "0"}},
		"crash": {two, corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{waiting("m0", "CrashLoopBackOff", nil), running("m1", true)}}, false, []string{"1/2", "CrashLoopBackOff", "2"}},
		"exit code without a reason": {two, corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: statuses{ended("m0", 3, "")}}, false,
			[]string{"0/2", "ExitCode:3", "0"}},
		"init runs":   {withInit, corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: statuses{running("i0", false)}}, false, []string{"0/2", "Init:0/2", "0"}},
		"init crash":  {withInit, corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: statuses{waiting("i0", "CrashLoopBackOff", nil)}}, false, []string{"0/2", "Init:CrashLoopBackOff", "2"}},
		"sidecar":     {withInit, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, InitContainerStatuses: statuses{ended("i0", 0, "Completed"), running("side", true)}, ContainerStatuses: statuses{running("m0", true)}}, false, []string{"2/2", "Running", "0"}},
		"gated":       {two, corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: "SchedulingGated"}}}, false, []string{"0/2", "SchedulingGated", "0"}},
		"terminating": {two, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: isReady, ContainerStatuses: statuses{running("m0", true), running("m1", true)}}, true, []string{"2/2", "Terminating", "0"}},
		"lost":        {two, corev1.PodStatus{Phase: corev1.PodRunning, Reason: "NodeLost"}, true, []string{"0/2", "Unknown", "0"}},
		"evicted":     {two, corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}, false, []string{"0/2", "Evicted", "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &pcorev1.Pod{Spec: pcorev1.PodSpec{PodSpec: tc.spec}, Status: pcorev1.PodStatus{PodStatus: tc.status}}
			got := Columns(pod, tc.deleting)
			if diff := cmp.Diff(tc.want, []string{got[ColumnReady], got[ColumnStatus], got[ColumnRestarts]}); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadinessGates(t *testing.T) {
	spec := &corev1.PodSpec{Containers: []corev1.Container{{Name: "m0"}}, ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "lb.example/attached"}}}
	facts := Facts{Phase: corev1.PodRunning, Main: []corev1.ContainerStatus{running("m0", true)}, SandboxReady: true}
	if c := FindCondition(Conditions(spec, facts), corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != ReasonReadinessGatesNotReady {
		t.Errorf("without the gate's condition: %+v", c)
	}
	facts.Others = []corev1.PodCondition{{Type: "lb.example/attached", Status: corev1.ConditionTrue}}
	if !IsTrue(Conditions(spec, facts), corev1.PodReady) {
		t.Error("with the gate's condition true the pod should be ready")
	}
}

func TestStampKeepsTimesAndOtherWriters(t *testing.T) {
	long := metav1.NewTime(time.Unix(1000, 0))
	now := time.Unix(2000, 5)
	before := []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: long},
		{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, LastTransitionTime: long},
		{Type: "lb.example/attached", Status: corev1.ConditionTrue},
	}
	got := Stamp([]corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}, before, 7, now)
	want := []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: long, ObservedGeneration: 7},
		{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Unix(2000, 0)), ObservedGeneration: 7},
		before[2],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

func TestRestartsAfter(t *testing.T) {
	never, onFailure := corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure
	c := corev1.Container{RestartPolicy: &never, RestartPolicyRules: []corev1.ContainerRestartRule{{
		Action: corev1.ContainerRestartRuleActionRestart, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}}
	spec := &corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways}
	for code, want := range map[int32]bool{42: true, 1: false, 0: false} {
		if got := RestartsAfter(&c, spec, code); got != want {
			t.Errorf("exit %d: %v, want %v", code, got, want)
		}
	}
	c.RestartPolicyRules = append(c.RestartPolicyRules, restartAllOn(42, 43))
	for code, want := range map[int32][2]bool{42: {true, false}, 43: {true, true}, 1: {false, false}} {
		if got := [2]bool{RestartsAfter(&c, spec, code), RestartsAllAfter(&c, code)}; got != want {
			t.Errorf("exit %d: restarts itself and all %v, want %v: the first rule that matches counts", code, got, want)
		}
	}
	c = corev1.Container{RestartPolicy: &onFailure}
	if RestartsAfter(&c, spec, 0) || !RestartsAfter(&c, spec, 1) {
		t.Error("the container's own policy should win over the pod's")
	}
}

func restartAllOn(codes ...int32) corev1.ContainerRestartRule {
	return corev1.ContainerRestartRule{
		Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: codes},
	}
}

func TestPhaseWhileAllContainersRestart(t *testing.T) {
	never := corev1.ContainerRestartPolicyNever
	asks := corev1.Container{Name: "asks", RestartPolicy: &never, RestartPolicyRules: []corev1.ContainerRestartRule{restartAllOn(42)}}
	spec := &corev1.PodSpec{
		RestartPolicy:  corev1.RestartPolicyNever,
		InitContainers: []corev1.Container{{Name: "init"}},
		Containers:     []corev1.Container{asks, {Name: "other"}},
	}
	asked := &corev1.ContainerStateTerminated{ExitCode: 42, Reason: "Error"}
	killed := &corev1.ContainerStateTerminated{ExitCode: 137, Reason: ReasonRestartingAllContainers}
	done := &corev1.ContainerStateTerminated{Reason: ReasonRestartingAllContainers}
	for name, tc := range map[string]struct {
		init, asks, other corev1.ContainerStatus
		want              corev1.PodPhase
	}{
		"one has asked, the others still run": {ended("init", 0, "Completed"), waiting("asks", "", asked), running("other", true), corev1.PodRunning},
		"all have ended":                      {waiting("init", "", done), waiting("asks", "", asked), waiting("other", "", killed), corev1.PodRunning},
		"an init container was killed, too":   {waiting("init", "", killed), waiting("asks", "", asked), waiting("other", "", killed), corev1.PodRunning},
		"init containers run again":           {running("init", false), waiting("asks", "", asked), waiting("other", "", killed), corev1.PodPending},
		"one is done before the other starts": {ended("init", 0, "Completed"), ended("asks", 0, "Completed"), waiting("other", "", done), corev1.PodRunning},
		"the init container fails this time":  {ended("init", 1, "Error"), waiting("asks", "", asked), waiting("other", "", killed), corev1.PodFailed},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Phase(spec, []corev1.ContainerStatus{tc.init}, []corev1.ContainerStatus{tc.asks, tc.other}, false, true); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestConditionsWhileAllContainersRestart(t *testing.T) {
	never := corev1.ContainerRestartPolicyNever
	spec := &corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i0"}}, Containers: []corev1.Container{{
		Name: "m0", RestartPolicy: &never, RestartPolicyRules: []corev1.ContainerRestartRule{restartAllOn(42)},
	}}}
	facts := Facts{
		Phase: corev1.PodRunning, RestartingAll: true, Init: []corev1.ContainerStatus{waiting("i0", "", nil)}, Main: []corev1.ContainerStatus{waiting("m0", "", nil)},
		Others: []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}},
	}
	got := Conditions(spec, facts)
	if c := FindCondition(got, corev1.AllContainersRestarting); c.Status != corev1.ConditionTrue || c.Reason != "RestartAllContainersStarted" || c.Message == "" {
		t.Errorf("the restart isn't told: %+v", c)
	}
	if !IsTrue(got, corev1.PodInitialized) {
		t.Error("what was initialized counts as initialized")
	}
	facts.Phase = corev1.PodFailed
	if c := FindCondition(Conditions(spec, facts), corev1.AllContainersRestarting); c.Status != corev1.ConditionFalse || c.Reason != ReasonPodFailed {
		t.Errorf("a failed pod restarts nothing: %+v", c)
	}
	spec.Containers[0].RestartPolicyRules = nil
	if FindCondition(Conditions(spec, facts), corev1.AllContainersRestarting) != nil {
		t.Error("a pod without the rule has the condition")
	}
}
