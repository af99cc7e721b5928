// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Leaf is what a certificate should say.
type Leaf struct {
	// Name is the file name without its ending.
	Name string
	// CommonName and Organizations are the user and the groups to the API server.
	CommonName    string
	Organizations []string
	// DNSNames and IPs are the names under which a server answers.
	DNSNames []string
	IPs      []net.IP
	// Server and Client say what the certificate is good for.
	Server, Client bool
}

// Pair is a certificate with its key, on disk.
type Pair struct {
	CertFile, KeyFile string
	NotAfter          time.Time
	// Renewed says why the pair was made anew; empty when it was kept.
	Renewed string
}

// EnsureLeaf keeps the certificate in the folder when it says what the leaf
// asks for, is this authority's, and has more than a third of its life left.
// Otherwise it makes a new key and certificate in its place.
func (a *Authority) EnsureLeaf(dir string, leaf Leaf, now time.Time) (Pair, error) {
	pair := Pair{
		CertFile: filepath.Join(dir, leaf.Name+".crt"),
		KeyFile:  filepath.Join(dir, leaf.Name+".key"),
	}
	cert, reason := a.existing(pair, leaf, now)
	if reason == "" {
		pair.NotAfter = cert.NotAfter
		return pair, nil
	}
	pair.Renewed = reason
	certPEM, keyPEM, notAfter, err := a.issue(leaf, now)
	if err != nil {
		return Pair{}, fmt.Errorf("making the certificate %s: %w", leaf.Name, err)
	}
	if err := writePair(pair.CertFile, certPEM, pair.KeyFile, keyPEM); err != nil {
		return Pair{}, fmt.Errorf("writing the certificate %s: %w", leaf.Name, err)
	}
	pair.NotAfter = notAfter
	return pair, nil
}

// existing reads the pair that is there and says why it won't do.
func (a *Authority) existing(pair Pair, leaf Leaf, now time.Time) (*x509.Certificate, string) {
	data, err := os.ReadFile(pair.CertFile)
	if err != nil {
		return nil, "there was none"
	}
	cert, err := parseCert(data)
	if err != nil {
		return nil, "it was damaged"
	}
	key, err := readKey(pair.KeyFile)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, "its key was missing or another's"
	}
	if cert.CheckSignatureFrom(a.cert) != nil {
		return nil, "it was signed by another authority"
	}
	return cert, RenewalReason(cert, leaf, now)
}

// RenewalReason is pure: it says why a certificate should be made anew, or
// nothing when it should be kept.
func RenewalReason(cert *x509.Certificate, leaf Leaf, now time.Time) string {
	life := cert.NotAfter.Sub(cert.NotBefore)
	switch {
	case now.After(cert.NotAfter):
		return "it had expired"
	case cert.NotAfter.Sub(now) < life/3:
		return "less than a third of its life was left"
	case now.Before(cert.NotBefore):
		return "it was not valid yet"
	case cert.Subject.CommonName != leaf.CommonName || !sameSet(cert.Subject.Organization, leaf.Organizations):
		return "its subject was another"
	case !sameSet(cert.DNSNames, leaf.DNSNames) || !sameSet(ipStrings(cert.IPAddresses), ipStrings(leaf.IPs)):
		return "its server names were others"
	case !slices.Equal(cert.ExtKeyUsage, leaf.usages()):
		return "its usages were others"
	}
	return ""
}

func (a *Authority) issue(leaf Leaf, now time.Time) (certPEM, keyPEM []byte, notAfter time.Time, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, time.Time{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, time.Time{}, err
	}
	notAfter = now.Add(LeafLife)
	if notAfter.After(a.cert.NotAfter) {
		// A leaf that outlives its authority is refused by some and accepted by others.
		notAfter = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		NotBefore:    now.Add(-backdate).UTC(),
		NotAfter:     notAfter.UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  leaf.usages(),
		DNSNames:     leaf.DNSNames,
		IPAddresses:  leaf.IPs,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, time.Time{}, err
	}
	keyPEM, err = encodeKey(key)
	return encodeCert(der), keyPEM, notAfter, err
}

func (l Leaf) usages() []x509.ExtKeyUsage {
	var usages []x509.ExtKeyUsage
	if l.Server {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	if l.Client {
		usages = append(usages, x509.ExtKeyUsageClientAuth)
	}
	return usages
}

func ipStrings(ips []net.IP) []string {
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = ip.String()
	}
	return out
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// EnsureSigningKey keeps or makes the key pair with which the API server signs
// service account tokens: NAME.key and, for verifying, NAME.pub. It has no
// expiry: a new one would end every token at once.
func EnsureSigningKey(dir, name string) (keyFile, pubFile string, err error) {
	keyFile, pubFile = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	key, err := readKey(keyFile)
	if os.IsNotExist(err) {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return "", "", fmt.Errorf("making the signing key %s: %w", name, err)
		}
		keyPEM, err := encodeKey(key)
		if err != nil {
			return "", "", fmt.Errorf("making the signing key %s: %w", name, err)
		}
		if err := WriteFile(keyFile, keyPEM, 0o600); err != nil {
			return "", "", fmt.Errorf("writing the signing key %s: %w", name, err)
		}
	} else if err != nil {
		return "", "", fmt.Errorf("reading the signing key %s: %w", name, err)
	}
	pub, err := encodePublic(key)
	if err != nil {
		return "", "", fmt.Errorf("making the public key %s: %w", name, err)
	}
	if old, err := os.ReadFile(pubFile); err == nil && bytes.Equal(old, pub) {
		return keyFile, pubFile, nil
	}
	if err := WriteFile(pubFile, pub, 0o644); err != nil {
		return "", "", fmt.Errorf("writing the public key %s: %w", name, err)
	}
	return keyFile, pubFile, nil
}
