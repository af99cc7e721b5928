// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
)

// encryptedResources are what kube-apiserver encrypts in etcd: the native
// Secrets, which service account tokens and many operators use, and Pinnace's.
var encryptedResources = []string{"secrets", "secrets.core.pinnace.dev"}

// ensureEncryption writes kube-apiserver's encryption configuration and keeps
// the key that is there. The other provider stands second, so that what was
// written before encryption was turned on, or off, can still be read.
func (l layout) ensureEncryption(plain bool) (string, error) {
	keyFile, file := l.path("config", "encryption.key"), l.path("config", "encryption.yaml")
	key, err := os.ReadFile(keyFile)
	if errors.Is(err, os.ErrNotExist) {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return "", fmt.Errorf("making the encryption key: %w", err)
		}
		key = []byte(base64.StdEncoding.EncodeToString(secret))
		err = pki.WriteFile(keyFile, key, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("keeping the encryption key: %w", err)
	}
	if decoded, err := base64.StdEncoding.DecodeString(string(key)); err != nil || len(decoded) != 32 {
		return "", fmt.Errorf("the encryption key %s is damaged: put back the one that the Secrets were written with", keyFile)
	}
	providers := fmt.Sprintf("      - secretbox: {keys: [{name: key1, secret: %s}]}\n      - identity: {}\n", key)
	if plain {
		providers = fmt.Sprintf("      - identity: {}\n      - secretbox: {keys: [{name: key1, secret: %s}]}\n", key)
	}
	config := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources:\n"
	for _, resource := range encryptedResources {
		config += "      - " + resource + "\n"
	}
	config += "    providers:\n" + providers
	if err := pki.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", fmt.Errorf("writing the encryption configuration: %w", err)
	}
	return file, nil
}

// authenticationConfig lets strangers ask whether the server is well, which
// envtest and load balancers do, and nothing else.
const authenticationConfig = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
    - path: /healthz
    - path: /livez
    - path: /readyz
`

func (l layout) ensureAuthentication() (string, error) {
	file := l.path("config", "authentication.yaml")
	if err := pki.WriteFile(file, []byte(authenticationConfig), 0o600); err != nil {
		return "", fmt.Errorf("writing the authentication configuration: %w", err)
	}
	return file, nil
}
