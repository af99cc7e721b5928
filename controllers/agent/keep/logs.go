// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels of containers by which they are found; the kubelet's names.
const (
	labelUID       = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// RotateLogs rotates the logs that are too big. The runtime is asked only about those.
func (k *Keeper) RotateLogs(ctx context.Context) error {
	if k.options.Logs.MaxSize < 0 || k.options.LogDir == "" {
		return nil
	}
	var failures []error
	err := k.eachLogFile(func(pod types.UID, container, path string, info fs.FileInfo) {
		if !strings.HasSuffix(path, ".log") || info.Size() < k.options.Logs.MaxSize {
			return
		}
		if r, ok := runOf(pod, container, filepath.Base(path)); ok {
			failures = append(failures, k.rotate(ctx, r, path))
		}
	})
	return errors.Join(append(failures, err)...)
}

// rotate rotates the log of a container that runs. One that has ended writes no more, and keeps its log as it is.
func (k *Keeper) rotate(ctx context.Context, r run, path string) error {
	list, err := k.options.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
		LabelSelector: map[string]string{labelUID: string(r.pod), labelContainer: r.name},
	})
	if err != nil {
		return fmt.Errorf("finding the container of the log %s: %w", path, err)
	}
	for _, c := range list {
		if c.GetMetadata().GetAttempt() == r.attempt {
			return k.rotateOf(ctx, c.GetId(), path)
		}
	}
	return nil
}

func (k *Keeper) rotateOf(ctx context.Context, id, path string) error {
	dir, log := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing the rotated logs: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	plan := planRotation(log, names, k.options.Logs, k.options.Now())
	for _, name := range plan.remove {
		if err := os.Remove(dir + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an old log: %w", err)
		}
	}
	for _, name := range plan.compress {
		if err := compress(dir + name); err != nil {
			return fmt.Errorf("compressing the log %s: %w", dir+name, err)
		}
	}
	rotated := dir + plan.rotated
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rotating a log: %w", err)
	}
	if err := k.options.Runtime.ReopenContainerLog(ctx, id); err != nil {
		// The container writes on into the old file: give it its name back, so that nothing is lost and the next look tries again.
		return errors.Join(fmt.Errorf("having the log of container %s reopened: %w", id, err), os.Rename(rotated, path))
	}
	return nil
}

// compress replaces a file by its compressed form, which has its name only when it is whole.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // It was only read.
	info, err := in.Stat()
	if err != nil {
		return err
	}
	made := path + unfinished
	out, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(made))
		}
	}()
	// Of a log the fastest level leaves a tenth; better ones cost several times the CPU for little.
	pack, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(pack, in)
		err = errors.Join(err, pack.Close())
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err = os.Rename(made, path+compressed); err != nil {
		return err
	}
	return os.Remove(path)
}

// eachLogFile visits the files of all containers' logs, rotated or not.
func (k *Keeper) eachLogFile(visit func(pod types.UID, container, path string, info fs.FileInfo)) error {
	pods, err := readDir(k.options.LogDir)
	if err != nil {
		return fmt.Errorf("listing the folders of logs: %w", err)
	}
	for _, p := range pods {
		pod := logFolderPod(p.Name())
		if pod == "" || !p.IsDir() {
			continue
		}
		if err := eachFile(filepath.Join(k.options.LogDir, p.Name()), func(container, path string, info fs.FileInfo) { visit(pod, container, path, info) }); err != nil {
			return err
		}
	}
	return nil
}

// eachFile visits the files in the folders of a folder, which are containers' names.
func eachFile(dir string, visit func(container, path string, info fs.FileInfo)) error {
	containers, err := readDir(dir)
	if err != nil {
		return fmt.Errorf("listing the folders of containers: %w", err)
	}
	for _, c := range containers {
		if !c.IsDir() {
			continue
		}
		files, err := readDir(filepath.Join(dir, c.Name()))
		if err != nil {
			return fmt.Errorf("listing the files of a container: %w", err)
		}
		for _, f := range files {
			// A file that went meanwhile is nobody's trouble.
			if info, err := f.Info(); err == nil && info.Mode().IsRegular() {
				visit(c.Name(), filepath.Join(dir, c.Name(), f.Name()), info)
			}
		}
	}
	return nil
}

// readDir lists a folder, of which one that isn't there has nothing.
func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
