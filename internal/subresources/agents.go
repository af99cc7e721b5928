// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// Agents finds the server of a node's agent, and trusts it for a reason: an authority vouches for the node's name, or the
// Node says which key it has. It is safe for concurrent use.
type Agents struct {
	nodes       client.Reader
	certificate func() (*tls.Certificate, error)
	authorities func() (*x509.CertPool, error)

	mu sync.Mutex
	// transports by node, each with the reason it stands on.
	transports map[string]trusted
}

type trusted struct {
	pin       string
	transport *http.Transport
}

// NewAgents makes one that shows the given client certificate. Nil authorities trust the keys that the Nodes name.
func NewAgents(nodes client.Reader, certificate func() (*tls.Certificate, error), authorities func() (*x509.CertPool, error)) *Agents {
	return &Agents{nodes: nodes, certificate: certificate, authorities: authorities, transports: map[string]trusted{}}
}

// Locate returns where the agent of a node answers, and how to talk to it.
func (a *Agents) Locate(ctx context.Context, name string) (*url.URL, http.RoundTripper, error) {
	node := &pcorev1.Node{}
	if err := a.nodes.Get(ctx, types.NamespacedName{Name: name}, node); err != nil {
		return nil, nil, fmt.Errorf("finding the agent of the node %s: %w", name, err)
	}
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	address := nodeAddress(node)
	if port == 0 || address == "" {
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf(
			"the node %s has no agent that could be asked: it is simulated, or its agent has no server", name))
	}
	pin := ""
	if a.authorities == nil {
		if pin = node.Annotations[access.PinAnnotation]; pin == "" {
			return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf(
				"the agent of node %s can't be told from a stranger: start the manager with --agent-ca-file, or the agent without --tls-cert-file", name))
		}
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(address, strconv.Itoa(int(port))), Path: "/"}, a.transport(name, pin), nil
}

func nodeAddress(node *pcorev1.Node) string {
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName} {
		for _, address := range node.Status.Addresses {
			if address.Type == kind && address.Address != "" {
				return address.Address
			}
		}
	}
	return ""
}

// transport speaks HTTP/1.1, since HTTP/2 can't be upgraded to a stream.
func (a *Agents) transport(node, pin string) *http.Transport {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.transports[node]
	if ok && known.pin == pin {
		return known.transport
	}
	if ok {
		known.transport.CloseIdleConnections()
	}
	config := access.NamedTLS(node, a.authorities)
	if a.authorities == nil {
		config = access.PinnedTLS(pin)
	}
	config.NextProtos = []string{"http/1.1"}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.certificate() }
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 2,
		// Logs are small pieces, sent at once.
		DisableCompression: true,
	}
	a.transports[node] = trusted{pin, transport}
	return transport
}
