// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
)

// The authorities, each a circle of trust of its own.
const (
	// ClusterAuthority signs kube-apiserver, its clients, and the servers of
	// agents and manager.
	ClusterAuthority = "ca"
	// EtcdAuthority signs etcd and its one client.
	EtcdAuthority = "etcd-ca"
	// FrontProxyAuthority signs kube-apiserver's calls to extension API servers.
	FrontProxyAuthority = "front-proxy-ca"
	// RegistryAuthority signs the image registry and its clients.
	RegistryAuthority = "registry-ca"
)

// renewEvery is how often the certificates are looked at. Leaves are renewed
// with four months left, so this need not be often.
const renewEvery = time.Hour

// CertificateEvent reports a renewal, or that one failed.
type CertificateEvent struct {
	Name     string
	Reason   string
	NotAfter time.Time
	Err      error
}

// certificates keeps every certificate of the control plane fresh. It is safe
// for concurrent use.
type certificates struct {
	dir string
	now func() time.Time

	mu          sync.Mutex
	authorities map[string]*pki.Authority
	kept        []keptLeaf
}

// keptLeaf is a certificate to keep fresh, and what to do once it was renewed.
type keptLeaf struct {
	authority string
	leaf      pki.Leaf
	renewed   func() error
}

// authority opens an authority once. The caller holds the lock.
func (c *certificates) authority(name string) (*pki.Authority, error) {
	if a, ok := c.authorities[name]; ok {
		return a, nil
	}
	a, err := pki.OpenAuthority(c.dir, name, c.now())
	if err != nil {
		return nil, err
	}
	if c.authorities == nil {
		c.authorities = map[string]*pki.Authority{}
	}
	c.authorities[name] = a
	return a, nil
}

func (c *certificates) open(name string) (*pki.Authority, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.authority(name)
}

// ensure makes a certificate, if need be, and keeps it fresh from now on.
// renewed, if any, is called after each later renewal.
func (c *certificates) ensure(authority string, leaf pki.Leaf, renewed func() error) (pki.Pair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := c.authority(authority)
	if err != nil {
		return pki.Pair{}, err
	}
	pair, err := a.EnsureLeaf(c.dir, leaf, c.now())
	if err != nil {
		return pki.Pair{}, err
	}
	for i := range c.kept {
		if c.kept[i].leaf.Name == leaf.Name {
			c.kept[i] = keptLeaf{authority, leaf, renewed}
			return pair, nil
		}
	}
	c.kept = append(c.kept, keptLeaf{authority, leaf, renewed})
	return pair, nil
}

// renew looks at every certificate once and reports what changed.
func (c *certificates) renew(report func(CertificateEvent)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.kept {
		a, err := c.authority(k.authority)
		var pair pki.Pair
		if err == nil {
			pair, err = a.EnsureLeaf(c.dir, k.leaf, c.now())
		}
		if err == nil && pair.Renewed != "" && k.renewed != nil {
			err = k.renewed()
		}
		if err != nil || pair.Renewed != "" {
			report(CertificateEvent{Name: k.leaf.Name, Reason: pair.Renewed, NotAfter: pair.NotAfter, Err: err})
		}
	}
}

// servingLeaf carries every name under which clients reach kube-apiserver.
func servingLeaf(o Options) (pki.Leaf, error) {
	leaf := pki.Leaf{
		Name: "apiserver", CommonName: "kube-apiserver", Server: true,
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	_, services, err := net.ParseCIDR(o.ServiceCIDR)
	if err != nil {
		return pki.Leaf{}, fmt.Errorf("reading the service range: %w", err)
	}
	first := bytes.Clone(services.IP)
	first[len(first)-1]++ // the native Service "kubernetes" always has the first address
	leaf.IPs = append(leaf.IPs, first)
	for _, name := range append([]string{o.BindAddress}, o.ServerNames...) {
		ip := net.ParseIP(name)
		switch {
		case ip == nil:
			leaf.DNSNames = append(leaf.DNSNames, name)
		case ip.IsUnspecified(), ip.IsLoopback() && (ip.Equal(leaf.IPs[0]) || ip.Equal(leaf.IPs[1])):
		default:
			leaf.IPs = append(leaf.IPs, ip)
		}
	}
	return leaf, nil
}

// serverCertificates makes what etcd and kube-apiserver need to start.
func (c *certificates) serverCertificates(o Options) error {
	for _, name := range []string{ClusterAuthority, EtcdAuthority, FrontProxyAuthority} {
		if _, err := c.open(name); err != nil {
			return err
		}
	}
	if _, _, err := pki.EnsureSigningKey(c.dir, "sa"); err != nil {
		return err
	}
	serving, err := servingLeaf(o)
	if err != nil {
		return err
	}
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	leaves := []keptLeaf{
		{authority: ClusterAuthority, leaf: serving},
		// etcd calls itself through its own gateway and as a peer: it is a client too.
		{authority: EtcdAuthority, leaf: pki.Leaf{Name: "etcd-server", CommonName: "etcd", Server: true, Client: true, DNSNames: []string{"localhost"}, IPs: loopback}},
		{authority: EtcdAuthority, leaf: pki.Leaf{Name: "etcd-client", CommonName: "kube-apiserver", Client: true}},
		{authority: FrontProxyAuthority, leaf: pki.Leaf{Name: "front-proxy-client", CommonName: "front-proxy-client", Client: true}},
	}
	for _, k := range leaves {
		if _, err := c.ensure(k.authority, k.leaf, nil); err != nil {
			return err
		}
	}
	return nil
}

// client makes the certificate of a user of kube-apiserver.
func (c *certificates) client(name string, user envtest.User, renewed func() error) (pki.Pair, error) {
	return c.ensure(ClusterAuthority, pki.Leaf{Name: name, CommonName: user.Name, Organizations: user.Groups, Client: true}, renewed)
}

// restConfig names files, so that a client that lives long takes up renewed
// certificates by itself.
func restConfig(host, caFile string, pair pki.Pair) *rest.Config {
	return &rest.Config{
		Host:            host,
		TLSClientConfig: rest.TLSClientConfig{CAFile: caFile, CertFile: pair.CertFile, KeyFile: pair.KeyFile},
		// Nothing is gained on one machine, and each event of a watch would be compressed by itself.
		DisableCompression: true,
	}
}

// writeKubeconfig writes a kubeconfig of one context. With embed it carries
// the certificates in itself, for people who take it elsewhere; without, it
// names their files, for processes of this machine, whose certificates are
// renewed while they run.
func writeKubeconfig(path, user string, config *rest.Config, embed bool) error {
	const name = "pinnace"
	cluster := &clientcmdapi.Cluster{
		Server: config.Host, CertificateAuthority: config.CAFile, CertificateAuthorityData: config.CAData,
		DisableCompression: config.DisableCompression && !embed,
	}
	auth := &clientcmdapi.AuthInfo{
		ClientCertificate: config.CertFile, ClientKey: config.KeyFile,
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
	}
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = cluster
	kubeconfig.AuthInfos[user] = auth
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	kubeconfig.CurrentContext = name
	if embed {
		if err := clientcmdapi.FlattenConfig(kubeconfig); err != nil {
			return fmt.Errorf("reading the certificates for the kubeconfig %s: %w", path, err)
		}
	}
	data, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return fmt.Errorf("encoding the kubeconfig %s: %w", path, err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return os.Chmod(path, 0o600)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the old kubeconfig: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the folder of the kubeconfig: %w", err)
	}
	if err := pki.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return nil
}

// authn lets envtest take its users from our authority in place of one that it
// makes anew, for a week, at each start. It implements envtest.Authn.
type authn struct {
	certificates *certificates
}

// Configure tells kube-apiserver whose client certificates to trust.
func (a *authn) Configure(_ string, args *envtest.Arguments) error {
	ca, err := a.certificates.open(ClusterAuthority)
	if err != nil {
		return err
	}
	args.Set("client-ca-file", ca.CertFile())
	return nil
}

// Start has nothing to do: the authority is on disk.
func (a *authn) Start() error { return nil }

// Stop has nothing to do.
func (a *authn) Stop() error { return nil }

// AddUser returns the given configuration with a certificate for the user.
func (a *authn) AddUser(user envtest.User, base *rest.Config) (*rest.Config, error) {
	pair, err := a.certificates.client(user.Name, user, nil)
	if err != nil {
		return nil, err
	}
	config := rest.CopyConfig(base)
	config.CertFile, config.KeyFile = pair.CertFile, pair.KeyFile
	return config, nil
}
