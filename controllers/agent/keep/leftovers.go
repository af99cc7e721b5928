// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// Tidy removes what is left of pods that are gone, and of runs of containers that the runtime has forgotten. A pod of which there is
// still a sandbox is left to the agent, which ends it.
func (k *Keeper) Tidy(ctx context.Context) error {
	k.work.Lock()
	defer k.work.Unlock()
	// What is there first, then what belongs there: the agent knows a pod before it makes anything of it, so what is found now and
	// known to nobody after is of no pod that is just beginning.
	found, files, err := k.find()
	if err != nil {
		return err
	}
	pods, err := k.options.Pods(ctx)
	if err != nil {
		return err
	}
	known := make(map[types.UID]bool, len(pods.UIDs))
	for uid := range pods.UIDs {
		known[uid] = true
	}
	sandboxes, err := k.options.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing the sandboxes: %w", err)
	}
	for _, s := range sandboxes {
		known[types.UID(s.GetLabels()[labelUID])] = true
	}
	containers, err := k.options.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing the containers: %w", err)
	}
	held := make(map[run]bool, len(containers))
	for _, c := range containers {
		uid := types.UID(c.GetLabels()[labelUID])
		known[uid] = true
		held[run{pod: uid, name: c.GetMetadata().GetName(), attempt: c.GetMetadata().GetAttempt()}] = true
	}
	err = k.removeLeftovers(ctx, planLeftovers(found, known))
	for _, path := range planRunFiles(files, held, k.options.Now()) {
		if failed := os.Remove(path); failed != nil && !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("removing a file of a container that is gone: %w", failed))
		}
	}
	return err
}

// find looks for what pods have left on the node.
func (k *Keeper) find() (found remains, files []runFile, err error) {
	add := func(pod types.UID, container, path string, info fs.FileInfo) {
		if r, ok := runOf(pod, container, filepath.Base(path)); ok {
			files = append(files, runFile{run: r, path: path, modified: info.ModTime()})
		}
	}
	if k.options.Volumes != nil {
		if found.volumes, err = k.options.Volumes.Pods(); err != nil {
			return found, nil, err
		}
		for _, pod := range found.volumes {
			messages := filepath.Join(k.options.Volumes.PodDir(pod), "containers")
			if err := eachFile(messages, func(container, path string, info fs.FileInfo) { add(pod, container, path, info) }); err != nil {
				return found, nil, err
			}
		}
	}
	if k.options.LogDir != "" {
		folders, err := readDir(k.options.LogDir)
		if err != nil {
			return found, nil, fmt.Errorf("listing the folders of logs: %w", err)
		}
		for _, f := range folders {
			found.logs = append(found.logs, f.Name())
		}
		if err := k.eachLogFile(add); err != nil {
			return found, nil, err
		}
	}
	if k.options.Cgroups != nil {
		uids, err := k.options.Cgroups.Pods()
		if err != nil {
			return found, nil, err
		}
		for _, uid := range uids {
			found.cgroups = append(found.cgroups, types.UID(uid))
		}
	}
	return found, files, nil
}

// removeLeftovers goes on after a failure: a mount that hangs keeps nothing else.
func (k *Keeper) removeLeftovers(ctx context.Context, gone remains) error {
	var failures []error
	done := func(what string, uid types.UID, err error) {
		if err != nil {
			failures = append(failures, fmt.Errorf("removing the %s of pod %s, which is gone: %w", what, uid, err))
			return
		}
		logf.FromContext(ctx).V(1).Info("Removed what a pod had left", "what", what, "uid", uid)
	}
	// Processes first: they may hold the volumes. While there are some, the folders stay, by which the cgroup is known for ours.
	dying := map[types.UID]bool{}
	for _, uid := range gone.cgroups {
		err := k.options.Cgroups.Remove(string(uid))
		dying[uid] = err != nil
		done("cgroup", uid, err)
	}
	for _, uid := range gone.volumes {
		if !dying[uid] {
			done("volumes", uid, k.options.Volumes.Unmount(uid))
		}
	}
	for _, name := range gone.logs {
		if uid := logFolderPod(name); !dying[uid] {
			done("logs", uid, os.RemoveAll(filepath.Join(k.options.LogDir, name)))
		}
	}
	return errors.Join(failures...)
}
