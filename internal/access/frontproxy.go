// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// frontProxyConfig is where the API server tells extension servers by what they know it
// (https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer).
var frontProxyConfig = types.NamespacedName{Namespace: "kube-system", Name: "extension-apiserver-authentication"}

// frontProxyFresh is how long the configuration is taken for current: an authority that is replaced is known after it.
const frontProxyFresh = time.Minute

// ErrNoFrontProxy says that the API server has no aggregation layer.
var ErrNoFrontProxy = errors.New("the API server tells no authority of its front proxy: start it with --requestheader-client-ca-file and --proxy-client-cert-file")

// FrontProxy knows users by what the API server's aggregation layer says of them in headers. Only a client certificate of
// the front proxy's authority makes the headers true. It is safe for concurrent use.
type FrontProxy struct {
	reader client.Reader
	now    func() time.Time

	mu      sync.Mutex
	config  *frontProxy
	fetched time.Time
}

// frontProxy is the API server's configuration.
type frontProxy struct {
	authorities                     *x509.CertPool
	names                           []string
	userHeaders, uidHeaders         []string
	groupHeaders, extraHeaderPrefix []string
}

// NewFrontProxy reads the configuration through the reader, which should not cache: it is one object, read once a minute.
func NewFrontProxy(reader client.Reader) *FrontProxy {
	return &FrontProxy{reader: reader, now: time.Now}
}

// Check reads the configuration. It returns ErrNoFrontProxy when the API server has no aggregation layer.
func (p *FrontProxy) Check(ctx context.Context) error {
	_, err := p.current(ctx)
	return err
}

func (p *FrontProxy) current(ctx context.Context) (*frontProxy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config != nil && p.now().Sub(p.fetched) < frontProxyFresh {
		return p.config, nil
	}
	var object corev1.ConfigMap
	if err := p.reader.Get(ctx, frontProxyConfig, &object); err != nil {
		if p.config != nil {
			// The one that asks is the API server, so it is there; what it said a minute ago holds on.
			return p.config, nil
		}
		return nil, fmt.Errorf("reading %s: %w", frontProxyConfig, err)
	}
	config, err := readFrontProxy(object.Data)
	if err != nil {
		return nil, err
	}
	p.config, p.fetched = config, p.now()
	return config, nil
}

func readFrontProxy(data map[string]string) (*frontProxy, error) {
	pem := data["requestheader-client-ca-file"]
	if pem == "" {
		return nil, ErrNoFrontProxy
	}
	config := &frontProxy{authorities: x509.NewCertPool()}
	if !config.authorities.AppendCertsFromPEM([]byte(pem)) {
		return nil, fmt.Errorf("reading %s: requestheader-client-ca-file holds no certificate", frontProxyConfig)
	}
	for key, to := range map[string]*[]string{
		"requestheader-allowed-names":        &config.names,
		"requestheader-username-headers":     &config.userHeaders,
		"requestheader-uid-headers":          &config.uidHeaders,
		"requestheader-group-headers":        &config.groupHeaders,
		"requestheader-extra-headers-prefix": &config.extraHeaderPrefix,
	} {
		if data[key] == "" {
			continue
		}
		if err := json.Unmarshal([]byte(data[key]), to); err != nil {
			return nil, fmt.Errorf("reading %s of %s: %w", key, frontProxyConfig, err)
		}
	}
	return config, nil
}

// Authenticate implements Authenticator.
func (p *FrontProxy) Authenticate(r *http.Request) (*authenticationv1.UserInfo, error) {
	config, err := p.current(r.Context())
	if err != nil {
		return nil, err
	}
	leaf, err := verify(r, config.authorities)
	if leaf == nil || err != nil {
		return nil, err
	}
	if len(config.names) > 0 && !slices.Contains(config.names, leaf.Subject.CommonName) {
		return nil, fmt.Errorf("%q is no name of the API server's front proxy", leaf.Subject.CommonName)
	}
	user := &authenticationv1.UserInfo{Username: first(r.Header, config.userHeaders), UID: first(r.Header, config.uidHeaders)}
	if user.Username == "" {
		return nil, errors.New("the front proxy names no user")
	}
	for _, name := range config.groupHeaders {
		user.Groups = append(user.Groups, r.Header.Values(name)...)
	}
	for name, values := range r.Header {
		for _, prefix := range config.extraHeaderPrefix {
			key, ok := cutPrefixFold(name, prefix)
			if !ok {
				continue
			}
			if user.Extra == nil {
				user.Extra = map[string]authenticationv1.ExtraValue{}
			}
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			key = strings.ToLower(key)
			user.Extra[key] = append(user.Extra[key], values...)
		}
	}
	return user, nil
}

func first(header http.Header, names []string) string {
	for _, name := range names {
		if value := header.Get(name); value != "" {
			return value
		}
	}
	return ""
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}
