// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ServerTLS serves with a certificate and trusts clients of an authority; all three are PEM files. They are read again
// when they change, so that renewed certificates are used without a restart.
func ServerTLS(certFile, keyFile, clientCAFile string) (*tls.Config, error) {
	files := &tlsFiles{cert: certFile, key: keyFile, ca: clientCAFile}
	if _, err := files.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return files.load()
		},
		// http.Server insists on a certificate here before it serves.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			config, err := files.load()
			if err != nil {
				return nil, err
			}
			return &config.Certificates[0], nil
		},
	}, nil
}

// tlsFiles caches what was read from three files.
type tlsFiles struct {
	cert, key, ca string

	mu     sync.Mutex
	seen   [3]time.Time
	config *tls.Config
}

func (f *tlsFiles) load() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var times [3]time.Time
	for i, path := range []string{f.cert, f.key, f.ca} {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("reading the registry's certificates: %w", err)
		}
		times[i] = info.ModTime()
	}
	if f.config != nil && times == f.seen {
		return f.config, nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		if f.config != nil {
			return f.config, nil // Certificate and key are being replaced just now, one after the other.
		}
		return nil, fmt.Errorf("reading the registry's certificate: %w", err)
	}
	pool, err := readPool(f.ca)
	if err != nil {
		return nil, err
	}
	f.seen = times
	f.config = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		NextProtos: []string{"http/1.1"},
	}
	return f.config, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the registry's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the registry's authority %s: %w", path, errors.New("there is no certificate in it"))
	}
	return pool, nil
}
