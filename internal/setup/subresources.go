// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/pinnace-dev/pinnace/internal/access"
	"github.com/pinnace-dev/pinnace/internal/subresources"
)

// SubresourcesOptions say how the manager serves subresources.pinnace.dev, and how it talks to agents.
type SubresourcesOptions struct {
	// Address to listen on; empty: the API isn't served.
	Address string
	// ExternalName is the address at which the API server reaches this process, outside a cluster. Empty: by the Service
	// pinnace-subresources.
	ExternalName string
	// CertFile and KeyFile hold the server's certificate for subresources.ServerName, CAFile its authority.
	CertFile, KeyFile, CAFile string
	// AgentCAFile holds the authorities of the agents' certificates. Empty: an agent's key must be the one its Node names.
	AgentCAFile string
	// AgentCertFile and AgentKeyFile hold the certificate that is shown to agents. Empty: the one for the API server.
	AgentCertFile, AgentKeyFile string
}

// addSubresources serves the aggregated API and registers it.
func addSubresources(ctx context.Context, mgr ctrl.Manager, config *rest.Config, o SubresourcesOptions) error {
	if o.Address == "" {
		return nil
	}
	if o.CertFile == "" || o.KeyFile == "" || o.CAFile == "" {
		return errors.New("serving the subresources needs --subresources-cert-file, --subresources-key-file and --subresources-ca-file, for the name " +
			subresources.ServerName)
	}
	frontProxy := access.NewFrontProxy(mgr.GetAPIReader())
	if err := frontProxy.Check(ctx); errors.Is(err, access.ErrNoFrontProxy) {
		mgr.GetLogger().Info("The subresources are not served", "reason", err.Error())
		return nil
	} else if err != nil {
		return err
	}
	certificate := access.KeyPairFiles(o.CertFile, o.KeyFile)
	if _, err := certificate(); err != nil {
		return fmt.Errorf("--subresources-cert-file: %w", err)
	}
	authority, err := os.ReadFile(o.CAFile)
	if err != nil {
		return fmt.Errorf("--subresources-ca-file: %w", err)
	}
	agents, err := agentTrust(mgr, config, o)
	if err != nil {
		return err
	}
	server := subresources.New(subresources.Options{
		Objects: mgr.GetClient(),
		Live:    mgr.GetAPIReader(),
		Client:  mgr.GetClient(),
		Gate:    access.NewGate(mgr.GetClient(), frontProxy),
		Agents:  agents,
	})
	if err := server.Listen(o.Address, access.ServerTLS(certificate)); err != nil {
		return err
	}
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("adding the server of subresources: %w", err)
	}
	return mgr.Add(&subresources.Registration{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(),
		ExternalName: o.ExternalName, Port: server.Port(), Authority: authority,
	})
}

// agentTrust finds with what the manager shows itself to agents, and by what it knows them. It never shows them a token: an
// agent that is not to be trusted could use it.
func agentTrust(mgr ctrl.Manager, config *rest.Config, o SubresourcesOptions) (*subresources.Agents, error) {
	certFile, keyFile := o.AgentCertFile, o.AgentKeyFile
	if certFile == "" && keyFile == "" {
		certFile, keyFile = config.CertFile, config.KeyFile
	}
	var certificate func() (*tls.Certificate, error)
	switch {
	case certFile != "" && keyFile != "":
		certificate = access.KeyPairFiles(certFile, keyFile)
	case o.AgentCertFile == "" && len(config.CertData) > 0:
		pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
		if err != nil {
			return nil, fmt.Errorf("reading the kubeconfig's certificate: %w", err)
		}
		certificate = func() (*tls.Certificate, error) { return &pair, nil }
	default:
		return nil, errors.New("agents know the manager by a client certificate: give one with --agent-cert-file and --agent-key-file")
	}
	if _, err := certificate(); err != nil {
		return nil, fmt.Errorf("--agent-cert-file: %w", err)
	}
	var authorities func() (*x509.CertPool, error)
	if o.AgentCAFile != "" {
		authorities = access.AuthorityFile(o.AgentCAFile)
		if _, err := authorities(); err != nil {
			return nil, fmt.Errorf("--agent-ca-file: %w", err)
		}
	}
	return subresources.NewAgents(mgr.GetClient(), certificate, authorities), nil
}
