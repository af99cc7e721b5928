// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	// AuthorityLife is how long an authority is valid.
	AuthorityLife = 10 * 365 * 24 * time.Hour
	// LeafLife is how long a leaf certificate is valid.
	LeafLife = 365 * 24 * time.Hour
	// backdate forgives clocks that run behind.
	backdate = 5 * time.Minute
)

// Authority signs leaf certificates. Its methods may be called concurrently,
// but not for the same leaf.
type Authority struct {
	certFile, keyFile string
	certPEM           []byte
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
}

// OpenAuthority reads the authority NAME.crt and NAME.key from the folder, or
// makes it when neither is there. An authority that is damaged or has expired
// is an error and never replaced in silence, for every certificate that it
// signed would become worthless.
func OpenAuthority(dir, name string, now time.Time) (*Authority, error) {
	a := &Authority{certFile: filepath.Join(dir, name+".crt"), keyFile: filepath.Join(dir, name+".key")}
	certPEM, certErr := os.ReadFile(a.certFile)
	_, keyErr := os.Stat(a.keyFile)
	if errors.Is(certErr, os.ErrNotExist) {
		// A key alone is what a crash between the two writes leaves: nothing was signed yet.
		if err := a.create(name, now); err != nil {
			return nil, fmt.Errorf("making the certificate authority %s: %w", name, err)
		}
		return a, nil
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, fmt.Errorf("reading the certificate authority %s: %w", name, err)
	}
	a.certPEM = certPEM
	var err error
	if a.cert, err = parseCert(certPEM); err != nil {
		return nil, fmt.Errorf("reading the certificate authority %s: %s: %w", name, a.certFile, err)
	}
	if a.key, err = readKey(a.keyFile); err != nil {
		return nil, fmt.Errorf("reading the certificate authority %s: %w", name, err)
	}
	if !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return nil, fmt.Errorf("reading the certificate authority %s: %s is not the key of %s", name, a.keyFile, a.certFile)
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("the certificate authority %s expired on %s: remove %s to have a new one made, and give every client a new kubeconfig",
			a.certFile, a.cert.NotAfter.Format(time.DateOnly), dir)
	}
	return a, nil
}

func (a *Authority) create(name string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "pinnace-" + name, Organization: []string{"pinnace"}},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(AuthorityLife).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key, a.certPEM = key, encodeCert(der)
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	return writePair(a.certFile, a.certPEM, a.keyFile, keyPEM)
}

// CertFile is the path of the authority's certificate.
func (a *Authority) CertFile() string { return a.certFile }

// KeyFile is the path of the authority's private key.
func (a *Authority) KeyFile() string { return a.keyFile }

// CertPEM is the authority's certificate.
func (a *Authority) CertPEM() []byte { return a.certPEM }

func newSerial() (*big.Int, error) {
	// 127 random bits: unique without a counter, and positive in 16 octets.
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func encodePublic(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "EC PRIVATE KEY" {
		return nil, fmt.Errorf("%s: there is no PEM EC private key in it", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// writePair writes the key first: a reader that sees a new certificate then
// always finds its key, and a crash in between leaves a pair that doesn't
// match, which the next look renews.
func writePair(certFile string, cert []byte, keyFile string, key []byte) error {
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return err
	}
	if err := WriteFile(keyFile, key, 0o600); err != nil {
		return err
	}
	return WriteFile(certFile, cert, 0o644)
}

// WriteFile replaces a file in one step and lets it reach the disk, so that
// neither a reader nor a power cut sees half of it.
func WriteFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
