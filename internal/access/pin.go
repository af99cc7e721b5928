// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
)

// PinAnnotation on a Node holds the Pin of its agent's server, when no authority vouches for it. Only the agent itself may
// write its Node (the policy pinnace-agents), so that it is as true as the node's address.
const PinAnnotation = "pinnace.dev/server-key"

// Pin names a certificate's key: the SHA-256 of its public part, as in RFC 7469.
func Pin(pair *tls.Certificate) (string, error) {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "", fmt.Errorf("reading the server's certificate: %w", err)
	}
	return pin(leaf), nil
}

func pin(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// PinnedTLS trusts exactly the server that has the key of a pin, whatever its certificate says.
func PinnedTLS(wanted string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Names and authorities say nothing here; the key does, below.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || wanted == "" || pin(state.PeerCertificates[0]) != wanted {
				return errors.New("the agent's server has another key than its Node says")
			}
			return nil
		},
	}
}

// NamedTLS trusts a server for which one of the authorities vouches under the given name, whatever address it has. The
// authorities are asked for at each connection.
func NamedTLS(name string, authorities func() (*x509.CertPool, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: name,
		// VerifyConnection does what this leaves out, with authorities that may change.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			roots, err := authorities()
			if err != nil {
				return err
			}
			if len(state.PeerCertificates) == 0 {
				return errors.New("the server shows no certificate")
			}
			others := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				others.AddCert(c)
			}
			_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{
				DNSName: name, Roots: roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			return err
		},
	}
}
