// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// Bounds of the after-death record, so that it never makes a pod's object big (docs/adr/0038).
const (
	deathsEach        = 3
	deathLinesMost    = 10
	deathBytesMost    = 1 << 10
	deathBytesAll     = 6 << 10
	deathMessageMost  = 512
	signalExitCodes   = 128
	reasonOutOfMemory = "OOMKilled"
)

// deathLines is how many lines of the log are kept with each death of a pod: the node's number, or the pod's where it wants
// fewer. What is no number is taken for none, since whoever wrote it meant to say something.
func deathLines(pod *pcorev1.Pod, node int) int {
	switch {
	case node < 0:
		node = 0
	case node == 0:
		node = deathLinesMost
	}
	node = min(node, deathLinesMost)
	text, ok := pod.Annotations[pcorev1.DeathLinesAnnotation]
	if !ok {
		return node
	}
	wanted, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return min(max(wanted, 0), node)
}

// planDeaths names the ended containers whose deaths aren't noted yet.
func planDeaths(pod *pcorev1.Pod, seen *observed, mem *memory) []*container {
	if pod.DeletionTimestamp != nil {
		return nil // What ends now was told to.
	}
	var fresh []*container
	count := map[string]int{}
	for _, c := range seen.containers {
		spec := findContainer(&pod.Spec.PodSpec, c.name())
		if spec == nil || !c.exited() {
			continue
		}
		if count[c.name()]++; count[c.name()] > deathsEach {
			continue
		}
		known := slices.ContainsFunc(mem.deaths, func(d pcorev1.ContainerDeath) bool { return d.ContainerID == c.Id })
		if !known && isDeath(pod, spec, c, mem.stopReasons[c.Id]) {
			fresh = append(fresh, c)
		}
	}
	return fresh
}

// isDeath leaves out ends that are as they should be: with success for good, and together with the pod.
func isDeath(pod *pcorev1.Pod, spec *corev1.Container, c *container, stopReason string) bool {
	if stopReason == endMessage {
		return false
	}
	if c.ExitCode != 0 {
		return true
	}
	initDone := c.kind() == kindInit
	return !initDone && podstate.RestartsAfter(spec, &pod.Spec.PodSpec, 0)
}

func makeDeath(c *container, mem *memory, lastLines string) pcorev1.ContainerDeath {
	d := pcorev1.ContainerDeath{
		Container: c.name(), RestartCount: c.restartCount(), ExitCode: c.ExitCode, Signal: signalOf(c.ExitCode), Reason: c.Reason,
		FinishedAt: seconds(c.FinishedAt), ContainerID: c.Id, LastLines: lastLines,
	}
	if c.StartedAt != 0 {
		at := seconds(c.StartedAt)
		d.StartedAt = &at
	}
	switch {
	case c.Reason == reasonOutOfMemory && mem.messages[c.Id] != "":
		d.Message = mem.messages[c.Id]
	case mem.stopReasons[c.Id] != "":
		d.Message = mem.stopReasons[c.Id]
	case mem.messages[c.Id] != "":
		d.Message = mem.messages[c.Id]
	default:
		d.Message = c.Message
	}
	d.Message = firstBytes(d.Message, deathMessageMost)
	return d
}

func signalOf(code int32) string {
	if code <= signalExitCodes {
		return ""
	}
	return unix.SignalName(syscall.Signal(code - signalExitCodes))
}

// boundDeaths sorts the deaths, the newest first, and keeps of each container the newest ones, and of their lines what there is room for.
func boundDeaths(list []pcorev1.ContainerDeath, lines int) []pcorev1.ContainerDeath {
	slices.SortStableFunc(list, func(a, b pcorev1.ContainerDeath) int {
		return cmp.Or(b.FinishedAt.Compare(a.FinishedAt.Time), cmp.Compare(b.RestartCount, a.RestartCount), cmp.Compare(a.Container, b.Container))
	})
	count, room := map[string]int{}, deathBytesAll
	out := list[:0]
	for _, d := range list {
		if count[d.Container]++; count[d.Container] > deathsEach {
			continue
		}
		if room -= len(d.LastLines); lines == 0 || room < 0 {
			d.LastLines = ""
		}
		out = append(out, d)
	}
	return out
}

// statusDeaths are the deaths as the status tells them. Before they are known, what the status said holds.
func statusDeaths(s situation, h host) []pcorev1.ContainerDeath {
	if len(s.mem.deaths) == 0 {
		return s.pod.Status.Deaths
	}
	out := slices.Clone(s.mem.deaths)
	for i := range out {
		out[i].ContainerID = h.runtimeName + "://" + out[i].ContainerID
	}
	return out
}

// lastLines takes the last lines out of the end of a log in CRI's format, "TIME STREAM P|F TEXT". A first line that was cut is
// left out, and so is what a terminal would act on.
func lastLines(log string, lines, most int) string {
	if lines <= 0 {
		return ""
	}
	var out []string
	goesOn := map[string]bool{}
	for line := range strings.Lines(log) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(parts) < 4 || parts[1] != "stdout" && parts[1] != "stderr" {
			continue
		}
		if goesOn[parts[1]] && len(out) > 0 {
			out[len(out)-1] += parts[3]
		} else {
			out = append(out, parts[3])
		}
		goesOn[parts[1]] = strings.HasPrefix(parts[2], "P")
	}
	out = out[max(len(out)-lines, 0):]
	for i := range out {
		out[i] = strings.TrimRight(strings.Map(printable, out[i]), " \t")
	}
	text := strings.Join(out, "\n")
	for len(text) > most || len(text) > 0 && !utf8.RuneStart(text[0]) {
		text = text[max(len(text)-most, 1):]
	}
	return text
}

func printable(r rune) rune {
	if unicode.IsControl(r) && r != '\t' {
		return -1
	}
	return r
}

func firstBytes(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const more = "..."
	return strings.ToValidUTF8(text[:most-len(more)], "") + more
}

// outOfMemory says who was killed for want of memory and how much it had: the runtime's own word is only that it was. Empty for any
// other end.
func outOfMemory(pod *pcorev1.Pod, spec *corev1.Container, ended *container) string {
	if ended.Reason != reasonOutOfMemory {
		return ""
	}
	limit := ended.GetResources().GetLinux().GetMemoryLimitInBytes()
	if limit == 0 {
		limit = spec.Resources.Limits.Memory().Value()
	}
	if limit > 0 {
		return fmt.Sprintf("Container %s used up its memory limit of %s.", spec.Name, resource.NewQuantity(limit, resource.BinarySI))
	}
	if whole := pod.Spec.Resources; whole != nil && !whole.Limits.Memory().IsZero() {
		return fmt.Sprintf("Container %s was killed when the pod had used up its memory limit of %s.", spec.Name, whole.Limits.Memory())
	}
	return fmt.Sprintf("Container %s was killed for want of memory on the node; it has no memory limit of its own.", spec.Name)
}
