// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/eviction"
	"github.com/pinnace-dev/pinnace/internal/machine"
)

// Stats is what a meter asks the runtime.
type Stats interface {
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// MachineMeter reads this machine. It is used by one loop at a time.
type MachineMeter struct {
	// Node is read; its Volumes, LogDir and CgroupRoot say where the pods' things are.
	Node *Node
	// Runtime knows what containers use, and where images are.
	Runtime Stats
	// DataDir is on the file system of volumes and logs.
	DataDir string
	// PodsMost is what pods may have of the memory together, in bytes; 0: not bounded.
	PodsMost int64

	imageDir string
}

var _ Meter = (*MachineMeter)(nil)

// Readings costs a few reads of /proc and of file systems; the runtime is asked once, for the place of its images.
func (m *MachineMeter) Readings(ctx context.Context) (eviction.Readings, eviction.Host, error) {
	out, host := eviction.Readings{}, eviction.Host{}
	total, available, err := machine.Memory()
	if err != nil {
		return nil, host, err
	}
	out[eviction.MemoryAvailable] = eviction.Reading{Available: available, Capacity: total}
	if m.PodsMost > 0 && m.Node.CgroupRoot != "" {
		if used, err := cgroup.ReadMemory(m.Node.CgroupRoot); err == nil {
			out[eviction.AllocatableMemory] = eviction.Reading{Available: max(0, m.PodsMost-used.WorkingSet), Capacity: m.PodsMost}
		}
	}
	if used, most, err := machine.PIDs(); err == nil {
		out[eviction.PIDAvailable] = eviction.Reading{Available: most - used, Capacity: most}
	}
	nodeFS, err := machine.FileSystemOf(m.DataDir)
	if err != nil {
		return nil, host, err
	}
	imageFS := nodeFS
	if dir, err := m.images(ctx); err == nil && dir != "" {
		if fs, err := machine.FileSystemOf(dir); err == nil {
			imageFS = fs
		}
	}
	host.ImageFS = imageFS.Device != nodeFS.Device
	out[eviction.NodeFSAvailable] = eviction.Reading{Available: nodeFS.Free, Capacity: nodeFS.Size}
	out[eviction.ImageFSAvailable] = eviction.Reading{Available: imageFS.Free, Capacity: imageFS.Size}
	if nodeFS.Inodes > 0 { // some file systems don't count them
		out[eviction.NodeFSInodesFree] = eviction.Reading{Available: nodeFS.InodesFree, Capacity: nodeFS.Inodes}
	}
	if imageFS.Inodes > 0 {
		out[eviction.ImageFSInodesFree] = eviction.Reading{Available: imageFS.InodesFree, Capacity: imageFS.Inodes}
	}
	return out, host, nil
}

func (m *MachineMeter) images(ctx context.Context) (string, error) {
	if m.imageDir != "" {
		return m.imageDir, nil
	}
	info, err := m.Runtime.ImageFsInfo(ctx)
	if err != nil {
		return "", fmt.Errorf("asking where the images are: %w", err)
	}
	for _, fs := range info.GetImageFilesystems() {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			m.imageDir = dir
		}
	}
	return m.imageDir, nil
}

// Usages asks the runtime about containers, and walks through the pods' volumes and logs.
func (m *MachineMeter) Usages(ctx context.Context, pods []*pcorev1.Pod) (eviction.Usages, error) {
	stats, err := m.Runtime.ListContainerStats(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("asking what the containers use: %w", err)
	}
	out := make(eviction.Usages, len(pods))
	byPod := map[types.UID][]*runtimeapi.ContainerStats{}
	for _, s := range stats {
		uid := types.UID(s.GetAttributes().GetLabels()[labelPodUID])
		byPod[uid] = append(byPod[uid], s)
	}
	for _, pod := range pods {
		of := byPod[pod.UID]
		if len(of) == 0 {
			continue // Nothing of it runs yet, or the runtime doesn't know.
		}
		usage, err := m.usage(pod, of)
		if err != nil {
			return nil, err
		}
		out[pod.UID] = usage
	}
	return out, nil
}

func (m *MachineMeter) usage(pod *pcorev1.Pod, stats []*runtimeapi.ContainerStats) (eviction.Usage, error) {
	out := eviction.Usage{Volumes: map[string]eviction.Disk{}}
	seen := map[string]int{}
	for _, s := range stats {
		name := s.GetAttributes().GetLabels()[labelContainerName]
		c := eviction.ContainerUsage{Name: name, Memory: int64(s.GetMemory().GetWorkingSetBytes().GetValue()), Root: eviction.Disk{
			Bytes: int64(s.GetWritableLayer().GetUsedBytes().GetValue()), Inodes: int64(s.GetWritableLayer().GetInodesUsed().GetValue()),
		}}
		if i, again := seen[name]; again { // one that has ended, beside the one that runs
			out.Containers[i].Memory = max(out.Containers[i].Memory, c.Memory)
			out.Containers[i].Root.Bytes += c.Root.Bytes
			out.Containers[i].Root.Inodes += c.Root.Inodes
			continue
		}
		seen[name] = len(out.Containers)
		if m.Node.LogDir != "" {
			logs, err := diskOf(filepath.Join(podLogDir(pod, m.Node), name))
			if err != nil {
				return out, err
			}
			c.Logs = logs
		}
		out.Containers = append(out.Containers, c)
	}
	for _, c := range out.Containers {
		out.Memory += c.Memory
	}
	if m.Node.CgroupRoot != "" {
		group := cgroupParent(pod, m.Node)
		if used, err := cgroup.ReadMemory(group); err == nil {
			out.Memory = used.WorkingSet
		}
		if n, err := cgroup.ReadPIDs(group); err == nil {
			out.Processes = n
		}
	}
	return out, m.volumes(pod, &out)
}

// volumes walks through the emptyDirs on disk; what else lies in the pod's folder is small, and counts as other.
func (m *MachineMeter) volumes(pod *pcorev1.Pod, out *eviction.Usage) error {
	if m.Node.Volumes == nil {
		return nil
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault {
			continue
		}
		used, err := diskOf(m.Node.Volumes.VolumeDir(pod.UID, v.Name))
		if err != nil {
			return err
		}
		out.Volumes[v.Name] = used
	}
	return nil
}

func diskOf(dir string) (eviction.Disk, error) {
	bytes, inodes, err := machine.DiskUsage(dir)
	if err != nil {
		return eviction.Disk{}, fmt.Errorf("measuring %s: %w", dir, err)
	}
	return eviction.Disk{Bytes: bytes, Inodes: inodes}, nil
}
