// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
	"github.com/pinnace-dev/pinnace/internal/image"
)

// startRegistry serves the images that `pinnace image load` brings, to holders of a certificate of ours alone. A runtime that is
// configured by others wouldn't know of it.
func (m *machine) startRegistry(ctx context.Context) error {
	if !m.options.real() || m.options.RuntimeEndpoint != "" {
		return nil
	}
	done := m.report.step("Starting the image registry")
	err := m.serveRegistry(ctx)
	done(err)
	return err
}

// checkRegistryPort says before anything starts what would fail in the middle.
func (m *machine) checkRegistryPort(context.Context) error {
	if !m.options.real() || m.options.RuntimeEndpoint != "" {
		return nil
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(m.options.RegistryPort))
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the image registry's address %s is taken by another program: stop that program, or choose another port with --registry-port", address)
	}
	if err != nil {
		return fmt.Errorf("opening the image registry's address: %w", err)
	}
	return listener.Close()
}

func (m *machine) serveRegistry(ctx context.Context) error {
	hosts := []net.IP{net.IPv4(127, 0, 0, 1)}
	if m.options.namespaced() {
		hosts = append(hosts, net.IP(m.segment.HostAddress().AsSlice()))
	}
	ca, err := m.plane.AuthorityFile(controlplane.RegistryAuthority)
	if err != nil {
		return err
	}
	serving, err := m.plane.Certificate(controlplane.RegistryAuthority, pki.Leaf{
		Name: "registry", CommonName: "registry", DNSNames: []string{"localhost"}, IPs: hosts, Server: true,
	})
	if err != nil {
		return err
	}
	client, err := m.plane.Certificate(controlplane.RegistryAuthority, pki.Leaf{
		Name: "registry-client", CommonName: "registry-client", Client: true,
	})
	if err != nil {
		return err
	}
	tls, err := image.ServerTLS(serving.CertFile, serving.KeyFile, ca)
	if err != nil {
		return err
	}
	registry, err := image.OpenRegistry(filepath.Join(m.options.DataDir, "registry"))
	if err != nil {
		return err
	}
	var addresses []string
	for _, host := range hosts {
		addresses = append(addresses, net.JoinHostPort(host.String(), strconv.Itoa(m.options.RegistryPort)))
	}
	server, err := registry.Serve(addresses, tls)
	if err != nil {
		return err
	}
	m.push("", server.Close)
	m.registry = image.Info{Addresses: server.Addresses(), CAFile: ca, ClientCertFile: client.CertFile, ClientKeyFile: client.KeyFile}
	if err := image.WriteInfo(m.options.DataDir, m.registry); err != nil {
		return err
	}
	m.push("", func(context.Context) error { return image.RemoveInfo(m.options.DataDir) })
	return m.pushPause(ctx)
}

// pushPause brings the image that every pod needs.
func (m *machine) pushPause(ctx context.Context) error {
	c, err := image.NewClient(m.registry)
	if err != nil {
		return err
	}
	if err := c.PushPause(ctx, filepath.Join(m.options.AssetsDir, "pause")); err != nil {
		return fmt.Errorf("making the pause image: %w", err)
	}
	return nil
}

// registryAddress is the registry's address as the nodes reach it.
func (m *machine) registryAddress() string { return m.registry.Addresses[len(m.registry.Addresses)-1] }
