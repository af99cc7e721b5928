// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal names something that a node may run out of; upstream's names.
type Signal string

// The signals.
const (
	MemoryAvailable Signal = "memory.available"
	// AllocatableMemory is what the pods together have left of what the node gives them. It follows from MemoryAvailable's threshold.
	AllocatableMemory Signal = "allocatableMemory.available"
	NodeFSAvailable   Signal = "nodefs.available"
	NodeFSInodesFree  Signal = "nodefs.inodesFree"
	ImageFSAvailable  Signal = "imagefs.available"
	ImageFSInodesFree Signal = "imagefs.inodesFree"
	PIDAvailable      Signal = "pid.available"
)

// What messages name beside the resources of the API.
const (
	resourceInodes corev1.ResourceName = "inodes"
	resourcePIDs   corev1.ResourceName = "pids"
)

// signals says what each stands for.
var signals = map[Signal]struct {
	resource  corev1.ResourceName
	condition corev1.NodeConditionType
}{
	MemoryAvailable:   {corev1.ResourceMemory, corev1.NodeMemoryPressure},
	AllocatableMemory: {corev1.ResourceMemory, corev1.NodeMemoryPressure},
	NodeFSAvailable:   {corev1.ResourceEphemeralStorage, corev1.NodeDiskPressure},
	ImageFSAvailable:  {corev1.ResourceEphemeralStorage, corev1.NodeDiskPressure},
	NodeFSInodesFree:  {resourceInodes, corev1.NodeDiskPressure},
	ImageFSInodesFree: {resourceInodes, corev1.NodeDiskPressure},
	PIDAvailable:      {resourcePIDs, corev1.NodePIDPressure},
}

// Resource is what the signal's pods are ranked by, and what messages name.
func (s Signal) Resource() corev1.ResourceName { return signals[s].resource }

// Condition of the node that the signal makes true.
func (s Signal) Condition() corev1.NodeConditionType { return signals[s].condition }

// Value is a bound: an amount, or a part of the capacity.
type Value struct {
	Amount *resource.Quantity
	// Part is between 0 and 1.
	Part float64
}

// Of is the bound in bytes or pieces, for a capacity.
func (v Value) Of(capacity int64) int64 {
	if v.Amount != nil {
		return v.Amount.Value()
	}
	return int64(float64(capacity) * v.Part)
}

// String writes an amount as it was given, and a part as a percentage.
func (v Value) String() string {
	if v.Amount != nil {
		return v.Amount.String()
	}
	return strconv.FormatFloat(v.Part*100, 'f', -1, 64) + "%"
}

// Threshold says from when on something is lacking.
type Threshold struct {
	Signal Signal
	Value  Value
	// Grace is for how long it may be; 0 is a hard threshold, which evicts at once.
	Grace time.Duration
	// Reclaim is how much more than the threshold must be free again; nil: nothing more.
	Reclaim *Value
}

func (t Threshold) hard() bool { return t.Grace == 0 }

// same says that two thresholds are one, whatever must be reclaimed.
func (t Threshold) same(o Threshold) bool {
	return t.Signal == o.Signal && t.Grace == o.Grace && t.Value.Part == o.Value.Part && t.Value.String() == o.Value.String()
}

// Options of a node's eviction, as flags give them.
type Options struct {
	// Hard and Soft are statements such as memory.available<100Mi; SoftGrace such as memory.available=1m30s; Reclaim such as
	// nodefs.available=2Gi.
	Hard, Soft, SoftGrace, Reclaim []string
	// Transition is how long a condition stays after what was lacking is there again.
	Transition time.Duration
	// GraceMost bounds what a pod gets to end when a soft threshold evicts it.
	GraceMost time.Duration
}

// Defaults are upstream's.
func Defaults() Options {
	return Options{
		Hard:       []string{"memory.available<100Mi", "nodefs.available<10%", "nodefs.inodesFree<5%", "imagefs.available<15%", "imagefs.inodesFree<5%"},
		Transition: 5 * time.Minute,
	}
}

// Thresholds reads the options. Its errors say what is wrong in which flag.
func (o Options) Thresholds() ([]Threshold, error) {
	hard, err := statements("--eviction-hard", o.Hard, "<")
	if err != nil {
		return nil, err
	}
	soft, err := statements("--eviction-soft", o.Soft, "<")
	if err != nil {
		return nil, err
	}
	reclaim, err := statements("--eviction-minimum-reclaim", o.Reclaim, "=")
	if err != nil {
		return nil, err
	}
	graces, err := periods(o.SoftGrace)
	if err != nil {
		return nil, err
	}
	for i := range soft {
		grace, ok := graces[soft[i].Signal]
		if !ok || grace <= 0 {
			return nil, fmt.Errorf("--eviction-soft has %s without a time in --eviction-soft-grace-period: add %s=1m30s or the like", soft[i].Signal, soft[i].Signal)
		}
		soft[i].Grace = grace
	}
	out := slices.Concat(hard, soft)
	for i := range out {
		for _, r := range reclaim {
			if r.Signal == out[i].Signal {
				out[i].Reclaim = &r.Value
			}
		}
	}
	for _, t := range hard {
		if t.Signal == MemoryAvailable {
			// What the pods may have together is guarded like what the machine has.
			out = append(out, Threshold{Signal: AllocatableMemory, Value: t.Value, Reclaim: t.Reclaim})
		}
	}
	return out, nil
}

// statements reads signal<value or signal=value. A value of 0 or 100 % of a threshold leaves it out, as upstream has it.
func statements(flag string, texts []string, sign string) ([]Threshold, error) {
	var out []Threshold
	seen := map[Signal]bool{}
	for _, text := range texts {
		name, value, ok := strings.Cut(strings.TrimSpace(text), sign)
		signal := Signal(strings.TrimSpace(name))
		example := "memory.available" + sign + "100Mi"
		switch {
		case !ok:
			return nil, fmt.Errorf("%s has %q: write it like %s", flag, text, example)
		case strings.HasPrefix(string(signal), "containerfs."):
			return nil, fmt.Errorf("%s has %s, which follows from nodefs and imagefs and can't be set: leave it out", flag, signal)
		case signals[signal].resource == "" || signal == AllocatableMemory:
			return nil, fmt.Errorf("%s has the unknown signal %q: there are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available", flag, signal)
		case seen[signal]:
			return nil, fmt.Errorf("%s has %s twice: leave one out", flag, signal)
		}
		seen[signal] = true
		v, err := parseValue(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("%s has the value %q for %s: give an amount such as 100Mi or a percentage such as 10%%", flag, value, signal)
		}
		if sign == "<" && (v.Amount == nil && (v.Part == 0 || v.Part == 1)) {
			continue
		}
		out = append(out, Threshold{Signal: signal, Value: v})
	}
	return out, nil
}

func parseValue(text string) (Value, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		part, err := strconv.ParseFloat(number, 64)
		if err != nil || part < 0 || part > 100 {
			return Value{}, fmt.Errorf("no percentage: %q", text)
		}
		return Value{Part: part / 100}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return Value{}, fmt.Errorf("no amount: %q", text)
	}
	return Value{Amount: &q}, nil
}

func periods(texts []string) (map[Signal]time.Duration, error) {
	out := map[Signal]time.Duration{}
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		d, err := time.ParseDuration(strings.TrimSpace(value))
		if err != nil || d < 0 {
			return nil, fmt.Errorf("--eviction-soft-grace-period has %q: write it like memory.available=1m30s", text)
		}
		out[Signal(strings.TrimSpace(name))] = d
	}
	return out, nil
}

// Reserved is what the hard thresholds keep of a node's capacity, which its pods don't get: memory, and disk of the nodefs.
func Reserved(thresholds []Threshold, capacity corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, t := range thresholds {
		if !t.hard() || t.Signal != MemoryAvailable && t.Signal != NodeFSAvailable {
			continue
		}
		name := t.Signal.Resource()
		if have, ok := capacity[name]; ok {
			out[name] = *resource.NewQuantity(t.Value.Of(have.Value()), resource.BinarySI)
		}
	}
	return out
}
