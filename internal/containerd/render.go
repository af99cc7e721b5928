// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"bytes"
	_ "embed"
	"strconv"
	"strings"
	"text/template"
)

// disabledPlugins are those of containerd's plugins that no pod of ours needs. Each costs start-up time and memory.
var disabledPlugins = []string{
	"io.containerd.differ.v1.erofs",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.restart",
	"io.containerd.internal.v1.tracing",
	"io.containerd.metrics.v1.grpc-prometheus",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.nri.v1.nri",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.zfs",
	"io.containerd.tracing.processor.v1.otlp",
}

//go:embed config.toml.tmpl
var configText string

var configTemplate = template.Must(template.New("config.toml").
	Funcs(template.FuncMap{"quote": quote, "list": list}).Parse(configText))

// Render returns the text of config.toml. Equal configurations give equal text.
func (c Config) Render() []byte {
	var b bytes.Buffer
	shimSockets := c.State + "/s"
	if len(shimSockets) > maxShimSocketDir {
		shimSockets = "" // containerd's own default, /run/containerd/s; the names in it are hashes, so nodes don't meet
	}
	data := struct {
		Config
		Disabled    []string
		ShimSockets string
	}{c.withDefaults(), disabledPlugins, shimSockets}
	if err := configTemplate.Execute(&b, data); err != nil {
		panic(err) // The template is a constant, and its data has no methods that fail.
	}
	return b.Bytes()
}

// quote writes a TOML basic string. Validate keeps control characters out, for which Go and TOML differ.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// Args are the arguments of the program.
func (c Config) Args() []string {
	return []string{"--config", c.ConfigFile, "--log-level", c.withDefaults().LogLevel}
}

// systemPath finds nft, iptables, mount and modprobe for the CNI plugins and runc. It stands after whatever the user's
// PATH says, which on a minimal system often lacks the sbin folders.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Env is laid over the environment of the starting process. path is that process' own PATH.
func (c Config) Env(path string) []string {
	if path != "" {
		path += ":"
	}
	return []string{
		"PATH=" + path + systemPath,
		// The live heap of an idle containerd is a few megabytes: at Go's default the heap would grow to several times
		// that with each pod that starts, and hardly shrink again.
		"GOGC=" + strconv.Itoa(gcPercent),
		// No trace exporter: it would look for a collector of the host's.
		"OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none",
	}
}

// gcPercent trades a little CPU while pods start for memory ever after.
const gcPercent = 40
