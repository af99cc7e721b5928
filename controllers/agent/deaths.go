// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"strings"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// deathsFile keeps the deaths of a pod's containers below the pod's folder, until the pod itself goes.
const deathsFile = "deaths.json"

// deathsFileMost bounds what is read of it; what is written is far below.
const deathsFileMost = 256 << 10

// noteDeaths writes down how containers ended that have just ended, while their logs are there. The status copies it, with the
// write that tells of the end anyway. The lock is held.
func (r *record) noteDeaths(pod *pcorev1.Pod, seen *observed) {
	if !r.mem.deathsRead {
		r.mem.deathsRead = true
		r.mem.deaths = r.readDeaths(pod)
	}
	lines := deathLines(pod, r.node.DeathLines)
	fresh := planDeaths(pod, seen, &r.mem)
	for _, c := range fresh {
		text := ""
		if lines > 0 && c.LogPath != "" && r.node.LogDir != "" {
			text = lastLines(volume.ReadTail(c.LogPath, 16*deathBytesMost), lines, deathBytesMost)
		}
		r.mem.deaths = append(r.mem.deaths, makeDeath(c, &r.mem, text))
	}
	hides := false
	for _, d := range r.mem.deaths {
		hides = hides || lines == 0 && d.LastLines != ""
	}
	if len(fresh) == 0 && !hides {
		return
	}
	r.mem.deaths = boundDeaths(r.mem.deaths, lines)
	if r.node.Volumes == nil {
		return
	}
	if data, err := json.Marshal(r.mem.deaths); err == nil {
		// When the disk is full the status still has them.
		_, _ = r.node.Volumes.WriteFile(r.uid, deathsFile, data, 0o600)
	}
}

// readDeaths finds what an earlier agent noted: on disk, or in the status where the disk has nothing.
func (r *record) readDeaths(pod *pcorev1.Pod) []pcorev1.ContainerDeath {
	var list []pcorev1.ContainerDeath
	if r.node.Volumes != nil {
		if json.Unmarshal([]byte(r.node.Volumes.ReadTail(r.uid, deathsFile, deathsFileMost)), &list) != nil {
			list = nil
		}
	}
	if len(list) == 0 {
		list = append(list, pod.Status.Deaths...)
	}
	for i := range list {
		if _, id, ok := strings.Cut(list[i].ContainerID, "://"); ok {
			list[i].ContainerID = id
		}
	}
	return list
}
