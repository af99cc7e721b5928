// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// remains are what is found on a node of pods, by what they are found in.
type remains struct {
	// volumes and cgroups by pod.
	volumes, cgroups []types.UID
	// logs are the names of the folders of logs, NAMESPACE_NAME_UID.
	logs []string
}

// planLeftovers chooses what belongs to no pod that anybody knows. Several nodes of one machine share its cgroups: of those only the ones
// of pods that have a folder on this node are its own.
func planLeftovers(found remains, known map[types.UID]bool) remains {
	mine := map[types.UID]bool{}
	for _, uid := range found.volumes {
		mine[uid] = true
	}
	for _, name := range found.logs {
		mine[logFolderPod(name)] = true
	}
	gone := func(uid types.UID) bool { return uid != "" && !known[uid] && mine[uid] }
	var out remains
	for _, uid := range found.volumes {
		if gone(uid) {
			out.volumes = append(out.volumes, uid)
		}
	}
	for _, uid := range found.cgroups {
		if gone(uid) {
			out.cgroups = append(out.cgroups, uid)
		}
	}
	for _, name := range found.logs {
		if gone(logFolderPod(name)) {
			out.logs = append(out.logs, name)
		}
	}
	return out
}

// logFolderPod is the UID in a folder's name, or nothing for a folder that isn't a pod's. Names and namespaces have no underscore.
func logFolderPod(name string) types.UID {
	parts := strings.Split(name, "_")
	if len(parts) != 3 {
		return ""
	}
	return types.UID(parts[2])
}

// run is one run of a container of a pod: its name and its attempt.
type run struct {
	pod     types.UID
	name    string
	attempt uint32
}

// runFile is a file that belongs to one run of a container: its log, rotated or not, or its termination message.
type runFile struct {
	run
	path     string
	modified time.Time
}

// runOf reads the attempt from a file's name: 3.log, 3.log.20260102-030405.gz, or 3.
func runOf(pod types.UID, container, file string) (run, bool) {
	number, _, _ := strings.Cut(file, ".")
	attempt, err := strconv.ParseUint(number, 10, 32)
	return run{pod: pod, name: container, attempt: uint32(attempt)}, err == nil
}

// runFileAge is how long a file of a run stays at least that the runtime doesn't know: a run that is being made is not in its list yet.
const runFileAge = 10 * time.Minute

// planRunFiles chooses the files of runs that the runtime has forgotten.
func planRunFiles(files []runFile, held map[run]bool, now time.Time) []string {
	var out []string
	for _, f := range files {
		if !held[f.run] && now.Sub(f.modified) >= runFileAge {
			out = append(out, f.path)
		}
	}
	slices.Sort(out)
	return out
}
