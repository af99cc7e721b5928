// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Problem is something about the machine that the pods' network can't put right itself.
type Problem struct {
	// What is wrong, what follows from it, and the way out, each in a few words.
	What, Consequence, Remedy string
}

// Error is one sentence.
func (p Problem) Error() string { return p.What + ": " + p.Consequence + "; " + p.Remedy }

// kernelSwitch is one file below /proc/sys. Those of net belong to the network namespace of who opens them.
type kernelSwitch struct {
	name, value string
	// module brings the switch into being where it is missing.
	module string
	// optional switches may be missing without harm (no IPv6 in the kernel).
	optional bool
	problem  Problem
}

func kernelSwitches(ipv6 bool) []kernelSwitch {
	switches := []kernelSwitch{
		{name: "net/ipv4/ip_forward", value: "1", problem: Problem{
			What:        "this machine forwards no packets between its networks",
			Consequence: "pods reach nothing outside their own node",
			Remedy:      "set net.ipv4.ip_forward=1 with sysctl, as root on the host",
		}},
		{name: "net/bridge/bridge-nf-call-iptables", value: "1", module: "br_netfilter", problem: Problem{
			What:        "packets on the pods' bridge pass by the packet filter (br_netfilter is off)",
			Consequence: "a service is not reachable from a pod when it is served by a pod of the same node",
			Remedy:      "run `modprobe br_netfilter` and set net.bridge.bridge-nf-call-iptables=1, as root on the host",
		}},
	}
	if ipv6 {
		switches = append(switches,
			kernelSwitch{name: "net/ipv6/conf/all/forwarding", value: "1", problem: Problem{
				What:        "this machine forwards no IPv6 packets between its networks",
				Consequence: "pods reach nothing outside their own node by IPv6",
				Remedy:      "set net.ipv6.conf.all.forwarding=1 with sysctl, as root on the host",
			}},
			kernelSwitch{name: "net/bridge/bridge-nf-call-ip6tables", value: "1", optional: true})
	}
	return switches
}

// PrepareHost sets the kernel's switches in the network namespace of the calling thread. What can't be set is returned,
// to be shown to the user; pods run all the same.
func PrepareHost(ipv6 bool) []Problem {
	return prepareHost("/proc/sys", ipv6, func(module string) error {
		return exec.Command("modprobe", module).Run()
	})
}

func prepareHost(root string, ipv6 bool, load func(module string) error) []Problem {
	var problems []Problem
	for _, s := range kernelSwitches(ipv6) {
		path := filepath.Join(root, s.name)
		if s.module != "" {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				_ = load(s.module) // Whether it helped shows when the switch is set.
			}
		}
		if err := setSwitch(path, s.value); err != nil && !s.optional {
			problem := s.problem
			problem.What = fmt.Sprintf("%s (%v)", problem.What, err)
			problems = append(problems, problem)
		}
	}
	return problems
}

// setSwitch writes only what differs: where /proc/sys is read-only, a value that is right already is no problem.
func setSwitch(path, value string) error {
	current, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(current)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}
