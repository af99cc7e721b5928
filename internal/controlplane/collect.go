// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/procfs"
	"k8s.io/client-go/rest"
)

// collectPath has a Go program collect its garbage before it answers with what is left.
const collectPath = "/debug/pprof/heap?gc=1"

const (
	// restSample is how long the machine has to be at rest.
	restSample = time.Second
	// collectionWorth is the CPU time that kube-apiserver has used for as much garbage as is worth a collection: a
	// rollout of some pods, or some minutes at rest.
	collectionWorth = time.Second
	// collectionMost is how long an answer may take before it is given up.
	collectionMost = 30 * time.Second
)

// collectAtRest returns what has kube-apiserver collect its garbage in moments in which nobody waits for it, when called
// every restSample. Left alone it does so in the middle of the next rollout, where its collection takes as long as the
// start of several pods. Where it can't be asked, it goes on as it is.
func (cp *ControlPlane) collectAtRest() func(context.Context) {
	var c collector
	return func(ctx context.Context) {
		now, err := cp.sampleCPU()
		if err != nil || !c.due(now) {
			return
		}
		// The answer is of no use, and an error neither: the next moment of rest comes.
		_ = collect(ctx, cp.admin)
	}
}

// collect returns when the garbage has been collected.
func collect(ctx context.Context, admin *rest.Config) error {
	ctx, cancel := context.WithTimeout(ctx, collectionMost)
	defer cancel()
	client, err := rest.HTTPClientFor(admin)
	if err != nil {
		return fmt.Errorf("making a client of kube-apiserver: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, admin.Host+collectPath, nil)
	if err != nil {
		return fmt.Errorf("asking kube-apiserver to collect its garbage: %w", err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("asking kube-apiserver to collect its garbage: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("asking kube-apiserver to collect its garbage: %s", answer.Status)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return fmt.Errorf("reading what kube-apiserver has left: %w", err)
	}
	return nil
}

// cpuSample is CPU time that was used up to a moment.
type cpuSample struct {
	at  time.Time
	pid int
	// server is kube-apiserver's; idle is how long a processor had nothing to do, the mean of all.
	server, idle time.Duration
}

// collector decides when kube-apiserver collects its garbage. It is pure.
type collector struct {
	last cpuSample
	// asked says that a collection was due at the last sample.
	asked bool
	// collected is the server's CPU time after its last collection.
	collected time.Duration
}

// due takes a sample and tells whether now is the time: since the last sample the server has hardly worked and the
// processors had nothing to do for half of it, and there is garbage enough.
func (c *collector) due(now cpuSample) bool {
	before := c.last
	c.last = now
	switch {
	case now.pid != before.pid:
		c.asked, c.collected = false, 0
		return false
	case c.asked:
		// What the collection itself took is no garbage.
		c.asked, c.collected = false, now.server
		return false
	}
	passed := now.at.Sub(before.at)
	rests := now.server-before.server <= passed/20 && now.idle-before.idle >= passed/2
	c.asked = rests && now.server-c.collected >= collectionWorth
	return c.asked
}

// sampleCPU looks at kube-apiserver and the machine.
func (cp *ControlPlane) sampleCPU() (cpuSample, error) {
	for _, p := range cp.Processes() {
		if p.Name != APIServer || p.PID == 0 {
			continue
		}
		process, err := procfs.NewProc(p.PID)
		if err != nil {
			return cpuSample{}, fmt.Errorf("looking at kube-apiserver: %w", err)
		}
		server, err := process.Stat()
		if err != nil {
			return cpuSample{}, fmt.Errorf("reading kube-apiserver's CPU time: %w", err)
		}
		files, err := procfs.NewDefaultFS()
		if err != nil {
			return cpuSample{}, fmt.Errorf("opening /proc: %w", err)
		}
		machine, err := files.Stat()
		if err != nil {
			return cpuSample{}, fmt.Errorf("reading the machine's CPU time: %w", err)
		}
		seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
		return cpuSample{
			at: cp.options.Clock.Now(), pid: p.PID,
			server: seconds(server.CPUTime()), idle: seconds((machine.CPUTotal.Idle + machine.CPUTotal.Iowait) / float64(len(machine.CPU))),
		}, nil
	}
	return cpuSample{}, errors.New("kube-apiserver doesn't run")
}
