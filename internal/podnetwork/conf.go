// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// DefaultBridge is the bridge that a node's pods are plugged into.
const DefaultBridge = "pinnace0"

// maxInterfaceName is the kernel's limit (IFNAMSIZ without the closing zero).
const maxInterfaceName = 15

// confName sorts before what other tools may leave in a shared folder; containerd takes the first file alone.
const confName = "05-pinnace.conflist"

// Network is the network of one node's pods.
type Network struct {
	// PodCIDRs are the node's ranges: one, or one of each family.
	PodCIDRs []string
	// Bridge defaults to DefaultBridge.
	Bridge string
	// MTU of the pods' interfaces in bytes; 0 leaves it to the kernel. See DetectMTU.
	MTU int
	// LeaseDir keeps which addresses are taken. It belongs on a tmpfs: after a reboot no pod holds an address. WriteConf
	// defaults it to a folder in /run/pinnace whose name depends on the CNI folder alone.
	LeaseDir string
}

// conflist is the part of CNI's configuration format that is used here.
type conflist struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Plugins    []any  `json:"plugins"`
}

type bridgePlugin struct {
	Type        string `json:"type"`
	Bridge      string `json:"bridge"`
	IsGateway   bool   `json:"isGateway"`
	IPMasq      bool   `json:"ipMasq"`
	HairpinMode bool   `json:"hairpinMode"`
	MTU         int    `json:"mtu,omitempty"`
	IPAM        ipam   `json:"ipam"`
}

type ipam struct {
	Type    string      `json:"type"`
	DataDir string      `json:"dataDir,omitempty"`
	Ranges  [][]ipRange `json:"ranges"`
	Routes  []ipRoute   `json:"routes"`
}

type ipRange struct {
	Subnet string `json:"subnet"`
}

type ipRoute struct {
	Dst string `json:"dst"`
}

// Render returns the CNI configuration. One plugin with host-local addresses is all there is: host ports and
// translation are the dataplane's, and each further plugin would cost a process per pod.
func (n Network) Render() ([]byte, error) {
	if len(n.PodCIDRs) == 0 {
		return nil, errors.New("the node has no pod CIDR yet")
	}
	bridge := n.Bridge
	if bridge == "" {
		bridge = DefaultBridge
	}
	if len(bridge) > maxInterfaceName {
		return nil, fmt.Errorf("the bridge's name %q is longer than the kernel allows (%d characters)", bridge, maxInterfaceName)
	}
	addresses := ipam{Type: "host-local", DataDir: n.LeaseDir}
	for _, cidr := range n.PodCIDRs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("the node's pod CIDR %q is no network: %w", cidr, err)
		}
		dst := "0.0.0.0/0"
		if prefix.Addr().Is6() {
			dst = "::/0"
		}
		addresses.Ranges = append(addresses.Ranges, []ipRange{{Subnet: prefix.Masked().String()}})
		addresses.Routes = append(addresses.Routes, ipRoute{Dst: dst})
	}
	// 1.0.0 and not 1.1.0: with 1.1.0 containerd runs the plugin for each status that the agent asks for.
	conf := conflist{CNIVersion: "1.0.0", Name: networkName, Plugins: []any{bridgePlugin{
		Type: "bridge", Bridge: bridge, IsGateway: true, IPMasq: false, HairpinMode: true, MTU: n.MTU, IPAM: addresses,
	}}}
	data, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the CNI configuration: %w", err)
	}
	return append(data, '\n'), nil
}

// WriteConf writes the configuration into containerd's CNI folder. The runtime sees it by itself and reports
// NetworkReady from then on. changed is false when the same text was there already.
func (n Network) WriteConf(dir string) (changed bool, err error) {
	if n.LeaseDir == "" {
		sum := sha256.Sum256([]byte(dir))
		n.LeaseDir = filepath.Join("/run/pinnace", "cni-"+hex.EncodeToString(sum[:6]))
	}
	data, err := n.Render()
	if err != nil {
		return false, err
	}
	path := filepath.Join(dir, confName)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("making the CNI folder: %w", err)
	}
	if err := os.MkdirAll(n.LeaseDir, 0o700); err != nil {
		return false, fmt.Errorf("making the folder of the pods' addresses: %w", err)
	}
	next := filepath.Join(dir, "."+confName+".new")
	if err := os.WriteFile(next, data, 0o644); err != nil {
		return false, fmt.Errorf("writing the CNI configuration: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return false, fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return true, nil
}

// RemoveBridge takes away the bridge that pods were plugged into, for when no pod is left. Missing is fine.
func RemoveBridge(name string) error {
	if name == "" {
		name = DefaultBridge
	}
	return removeLink(name)
}
