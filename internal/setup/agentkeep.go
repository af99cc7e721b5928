// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	ctrl "sigs.k8s.io/controller-runtime"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/controllers/agent/keep"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/runtime/content"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/internal/runtime/stray"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// AgentKeepOptions say what is kept on a node and what is thrown away. The names are those of the kubelet's configuration.
type AgentKeepOptions struct {
	// LogMaxSize is a quantity such as 10Mi; negative: logs are never rotated. LogMaxFiles of one container, at least 2.
	LogMaxSize  string
	LogMaxFiles int
	// ImageGCHigh and ImageGCLow are percentages of the disk in use.
	ImageGCHigh, ImageGCLow int
	// ImageMinimumAge is how long an image stays at least.
	ImageMinimumAge time.Duration
	// DeathLines is how many last lines of the log are kept with each death of a container; 0: none.
	DeathLines int
	// TidyEvery is how often is looked for what pods and the runtime have left; 0: each minute. LogsEvery is how often logs are
	// looked at; 0: each 10 s, upstream's.
	TidyEvery, LogsEvery time.Duration
}

func newAgentKeepOptions() AgentKeepOptions {
	return AgentKeepOptions{
		LogMaxSize: "10Mi", LogMaxFiles: 5, ImageGCHigh: 85, ImageGCLow: 80, ImageMinimumAge: 2 * time.Minute, DeathLines: 10,
	}
}

// policies reads what the flags say.
func (o AgentKeepOptions) policies() (keep.ImagePolicy, keep.LogPolicy, error) {
	images := keep.ImagePolicy{High: o.ImageGCHigh, Low: o.ImageGCLow, MinimumAge: o.ImageMinimumAge}
	if images.MinimumAge == 0 {
		images.MinimumAge = -1 // The room takes 0 for its default.
	}
	logs := keep.LogPolicy{MaxFiles: o.LogMaxFiles}
	size, err := resource.ParseQuantity(o.LogMaxSize)
	switch {
	case err != nil || size.IsZero():
		return images, logs, fmt.Errorf("--container-log-max-size %q is no size: give one such as 10Mi, or -1 for no rotation", o.LogMaxSize)
	case o.LogMaxFiles < 2:
		return images, logs, fmt.Errorf("--container-log-max-files is %d: give at least 2, one of which is written to", o.LogMaxFiles)
	case o.ImageGCLow < 1 || o.ImageGCHigh > 100 || o.ImageGCLow > o.ImageGCHigh:
		return images, logs, fmt.Errorf("--image-gc-low-threshold is %d and --image-gc-high-threshold %d: give percentages from 1 to 100, the high one not below the low one", o.ImageGCLow, o.ImageGCHigh)
	}
	logs.MaxSize = size.Value()
	return images, logs, nil
}

// deathLines as the agent takes it, for whom 0 is the default.
func (o AgentKeepOptions) deathLines() int {
	if o.DeathLines <= 0 {
		return -1
	}
	return o.DeathLines
}

// addKeeper wires what keeps a real node in order.
func addKeeper(mgr ctrl.Manager, o AgentOptions, pods *agent.Reconciler, runtime *cri.Client, volumes *volume.Manager, logDir string) (*keep.Keeper, error) {
	images, logs, err := o.Keep.policies()
	if err != nil {
		return nil, err
	}
	recorder, object := mgr.GetEventRecorder("pinnace-agent"), &pcorev1.Node{}
	object.Name = o.NodeName
	var addresses keep.Addresses
	if o.CNIConfDir != "" {
		addresses = podnetwork.Leases{ConfDir: o.CNIConfDir}
	}
	keeper := keep.New(keep.Options{
		Runtime: runtime,
		Pods: func(ctx context.Context) (out keep.Pods, err error) {
			out.UIDs, out.Images, err = pods.Known(ctx, o.NodeName)
			return out, err
		},
		Volumes:   volumes,
		LogDir:    logDir,
		Cgroups:   cgroup.Leftovers{Parent: o.CgroupRoot},
		Machine:   &stray.Finder{Info: runtime.Info},
		Addresses: addresses,
		TidyEvery: o.Keep.TidyEvery,
		LogsEvery: o.Keep.LogsEvery,
		Images:    images,
		Logs:      logs,
		Tell: func(reason, note string) {
			recorder.Eventf(object, nil, corev1.EventTypeWarning, reason, "Tidying", "%s", note)
		},
	})
	return keeper, mgr.Add(keeper)
}

// PullProgress reads how far pulls are from the runtime's store on this machine's disk; a runtime that has none there tells nothing.
func PullProgress(runtime *cri.Client) func(ctx context.Context, since time.Time) (agent.PullProgress, bool) {
	return func(ctx context.Context, since time.Time) (out agent.PullProgress, ok bool) {
		info, err := runtime.ImageFsInfo(ctx)
		if err != nil {
			return out, false
		}
		for _, fs := range info.GetImageFilesystems() {
			store, ok := content.Find(fs.GetFsId().GetMountpoint())
			if !ok {
				continue
			}
			p, err := store.Progress(since)
			return agent.PullProgress{Done: p.Done, Total: p.Total}, err == nil
		}
		return out, false
	}
}
