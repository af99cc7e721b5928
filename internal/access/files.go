// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// file is what a file holds, read anew when the file has changed.
type file[V any] struct {
	paths []string
	read  func() (V, error)

	mu      sync.Mutex
	value   V
	have    bool
	changed []time.Time
}

func (f *file[V]) get() (V, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := make([]time.Time, len(f.paths))
	same := f.have
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			return f.value, f.stale(err)
		}
		times[i] = info.ModTime()
		same = same && f.changed[i].Equal(times[i])
	}
	if same {
		return f.value, nil
	}
	value, err := f.read()
	if err != nil {
		return f.value, f.stale(err)
	}
	f.value, f.have, f.changed = value, true, times
	return value, nil
}

// stale keeps what was read before while the files are being replaced.
func (f *file[V]) stale(err error) error {
	if f.have {
		return nil
	}
	return err
}

// AuthorityFile reads a file of certificates, and reads it anew when it changes.
func AuthorityFile(path string) func() (*x509.CertPool, error) {
	f := &file[*x509.CertPool]{paths: []string{path}, read: func() (*x509.CertPool, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the authority's certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("the file %s holds no certificate in PEM", path)
		}
		return pool, nil
	}}
	return f.get
}

// KeyPairFiles reads a certificate and its key, and reads them anew when they change.
func KeyPairFiles(certFile, keyFile string) func() (*tls.Certificate, error) {
	f := &file[*tls.Certificate]{paths: []string{certFile, keyFile}, read: func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate %s and its key: %w", certFile, err)
		}
		return &pair, nil
	}}
	return f.get
}

// ServerTLS serves with the certificate and asks clients for theirs without judging it: an Authenticator does, so that who
// shows none, or a stranger's, gets a clear answer in place of a broken connection.
func ServerTLS(certificate func() (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
	}
}
