// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Info says how to reach a registry. `pinnace up` leaves it in its data folder for the other commands.
type Info struct {
	// Addresses are where it listens (host:port), the one on localhost first.
	Addresses []string `json:"addresses"`
	// CAFile is the authority that signed the registry's certificate.
	CAFile string `json:"caFile"`
	// ClientCertFile and ClientKeyFile let a client in.
	ClientCertFile string `json:"clientCertFile"`
	ClientKeyFile  string `json:"clientKeyFile"`
}

const infoName = "registry.json"

// WriteInfo leaves the information in a data folder, readable for its owner alone.
func WriteInfo(dataDir string, info Info) error {
	data, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the registry's address: %w", err)
	}
	if err := writeFile(filepath.Join(dataDir, infoName), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the registry's address: %w", err)
	}
	return nil
}

// RemoveInfo takes it away again when the registry ends.
func RemoveInfo(dataDir string) error {
	if err := os.Remove(filepath.Join(dataDir, infoName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the registry's address: %w", err)
	}
	return nil
}

// ReadInfo finds the registry of the `pinnace up` that runs with this data folder.
func ReadInfo(dataDir string) (Info, error) {
	path := filepath.Join(dataDir, infoName)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Info{}, fmt.Errorf("no `pinnace up` runs with the data folder %s: start it first, or name its folder with --data-dir; a runtime of --runtime-endpoint takes images by its own means, such as `ctr -n k8s.io images import`", dataDir)
	case errors.Is(err, os.ErrPermission):
		return Info{}, fmt.Errorf("this user may not read %s: run the command as the user who runs `pinnace up`", path)
	case err != nil:
		return Info{}, fmt.Errorf("reading the registry's address: %w", err)
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil || len(info.Addresses) == 0 {
		return Info{}, fmt.Errorf("the file %s is damaged: stop `pinnace up` and start it again", path)
	}
	return info, nil
}

// WriteHosts makes a registry the first mirror of all registries for a containerd whose registry config_path is dir.
// address is the one of the registry's addresses that this containerd reaches. An image that the registry doesn't have
// comes from its own registry. containerd reads the file at each pull, and the certificates with it.
func WriteHosts(dir, address string, info Info) error {
	folder := filepath.Join(dir, "_default")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("making the folder of the registry's mirror: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by pinnace at each start; changes are lost.\n")
	fmt.Fprintf(&b, "[host.%s]\n", strconv.Quote("https://"+address))
	fmt.Fprintf(&b, "  capabilities = [\"pull\", \"resolve\"]\n")
	fmt.Fprintf(&b, "  ca = %s\n", strconv.Quote(info.CAFile))
	fmt.Fprintf(&b, "  client = [[%s, %s]]\n", strconv.Quote(info.ClientCertFile), strconv.Quote(info.ClientKeyFile))
	fmt.Fprintf(&b, "  dial_timeout = \"2s\"\n")
	if err := writeFile(filepath.Join(folder, "hosts.toml"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("writing the registry's mirror configuration: %w", err)
	}
	return nil
}
