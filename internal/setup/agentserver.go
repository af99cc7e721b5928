// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/pinnace-dev/pinnace/internal/access"
	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
	"github.com/pinnace-dev/pinnace/internal/nodeserver"
)

// AgentServerOptions say how an agent's server answers.
type AgentServerOptions struct {
	// Address to listen on; empty: nodeserver.DefaultPort of the node's address, or any port that is free.
	Address string
	// CertFile and KeyFile hold the server's certificate. Empty: the agent makes one and tells its key in the Node.
	CertFile, KeyFile string
	// ClientCAFile holds the authorities of clients' certificates. Empty: only bearer tokens tell who asks.
	ClientCAFile string
}

// nodeServer is what the Node says of the server.
type nodeServer struct {
	annotations map[string]string
	port        int32
}

// addNodeServer makes the agent's server, which has its port from now on and answers once the manager starts.
func addNodeServer(mgr ctrl.Manager, o AgentOptions, address netip.Addr, runtime nodeserver.Runtime) (nodeServer, error) {
	var out nodeServer
	certificate, err := serverCertificate(o, &out)
	if err != nil {
		return out, err
	}
	var authenticators []access.Authenticator
	if o.Server.ClientCAFile != "" {
		authorities := access.AuthorityFile(o.Server.ClientCAFile)
		if _, err := authorities(); err != nil {
			return out, fmt.Errorf("--client-ca-file: %w", err)
		}
		authenticators = append(authenticators, access.Certificates(authorities))
	}
	authenticators = append(authenticators, access.Tokens(mgr.GetClient()))
	server := nodeserver.New(nodeserver.Options{
		NodeName:      o.NodeName,
		Pods:          mgr.GetClient(),
		Runtime:       runtime,
		Gate:          access.NewGate(mgr.GetClient(), authenticators...),
		Metrics:       promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}),
		CheckpointDir: filepath.Join(o.DataDir, "checkpoints"),
	})
	if err := listen(server, o.Server.Address, address, access.ServerTLS(certificate)); err != nil {
		return out, err
	}
	out.port = server.Port()
	return out, mgr.Add(server)
}

// listen takes the address that was asked for. Without one, a default port that is taken is no reason to fail: whoever looks
// for the server reads the port from the Node.
func listen(server *nodeserver.Server, wanted string, node netip.Addr, config *tls.Config) error {
	if wanted != "" {
		return server.Listen(wanted, config)
	}
	err := server.Listen(net.JoinHostPort(node.String(), strconv.Itoa(nodeserver.DefaultPort)), config)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = server.Listen(net.JoinHostPort(node.String(), "0"), config)
	}
	return err
}

// serverCertificate reads the server's certificate, or makes one whose key stands in the Node: who trusts the API server in
// where a node is can trust it in which key it has.
func serverCertificate(o AgentOptions, out *nodeServer) (func() (*tls.Certificate, error), error) {
	certFile, keyFile := o.Server.CertFile, o.Server.KeyFile
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("--tls-cert-file and --tls-private-key-file belong together: give both or none")
	}
	made := certFile == ""
	if made {
		dir, now := filepath.Join(o.DataDir, "pki"), time.Now()
		authority, err := pki.OpenAuthority(dir, "server-ca", now)
		if err != nil {
			return nil, fmt.Errorf("making a certificate for the agent's server: %w", err)
		}
		pair, err := authority.EnsureLeaf(dir, pki.Leaf{Name: "server", CommonName: o.NodeName, DNSNames: []string{o.NodeName}, Server: true}, now)
		if err != nil {
			return nil, err
		}
		certFile, keyFile = pair.CertFile, pair.KeyFile
	}
	read := access.KeyPairFiles(certFile, keyFile)
	pair, err := read()
	if err != nil {
		return nil, fmt.Errorf("--tls-cert-file: %w", err)
	}
	if made {
		pin, err := access.Pin(pair)
		if err != nil {
			return nil, err
		}
		out.annotations = map[string]string{access.PinAnnotation: pin}
	}
	return read, nil
}
