// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// circle is an authority of the tests.
type circle struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCircle(t *testing.T) *circle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &circle{cert, key}
}

func (c *circle) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

func (c *circle) pool() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool, nil
}

func (c *circle) issue(t *testing.T, name string, groups []string, usage x509.ExtKeyUsage, until time.Duration) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: groups}, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(until),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func request(pair *tls.Certificate, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "https://server/", nil)
	r.TLS = &tls.ConnectionState{}
	if pair != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{pair.Leaf}
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestCertificates(t *testing.T) {
	ours, others := newCircle(t), newCircle(t)
	for _, c := range []struct {
		name string
		pair *tls.Certificate
		want *authenticationv1.UserInfo
		fail bool
	}{
		{"none", nil, nil, false},
		{"ours", ours.issue(t, "ann", []string{"team"}, x509.ExtKeyUsageClientAuth, time.Hour),
			&authenticationv1.UserInfo{Username: "ann", Groups: []string{"team", "system:authenticated"}}, false},
		{"another circle's", others.issue(t, "ann", nil, x509.ExtKeyUsageClientAuth, time.Hour), nil, true},
		{"a server's", ours.issue(t, "ann", nil, x509.ExtKeyUsageServerAuth, time.Hour), nil, true},
		{"expired", ours.issue(t, "ann", nil, x509.ExtKeyUsageClientAuth, -time.Minute), nil, true},
		{"nameless", ours.issue(t, "", nil, x509.ExtKeyUsageClientAuth, time.Hour), nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Certificates(ours.pool).Authenticate(request(c.pair))
			if diff := cmp.Diff(c.want, got); diff != "" || (err != nil) != c.fail {
				t.Errorf("error %v, difference: %s", err, diff)
			}
		})
	}
}

func TestFrontProxy(t *testing.T) {
	ours, others := newCircle(t), newCircle(t)
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: frontProxyConfig.Namespace, Name: frontProxyConfig.Name},
		Data: map[string]string{
			"requestheader-client-ca-file":       string(ours.pem()),
			"requestheader-allowed-names":        `["front-proxy-client"]`,
			"requestheader-username-headers":     `["X-Remote-User"]`,
			"requestheader-uid-headers":          `["X-Remote-Uid"]`,
			"requestheader-group-headers":        `["X-Remote-Group"]`,
			"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
		},
	}
	proxy := NewFrontProxy(fake.NewClientBuilder().WithObjects(config).Build())
	front := ours.issue(t, "front-proxy-client", nil, x509.ExtKeyUsageClientAuth, time.Hour)
	headers := []string{
		"X-Remote-User", "ann", "X-Remote-Uid", "7", "X-Remote-Group", "team", "X-Remote-Group", "system:authenticated",
		"X-Remote-Extra-Scopes", "all", "X-Remote-Extra-Example.com%2fkey", "v",
	}
	for _, c := range []struct {
		name    string
		pair    *tls.Certificate
		headers []string
		want    *authenticationv1.UserInfo
		fail    bool
	}{
		{"the front proxy", front, headers, &authenticationv1.UserInfo{
			Username: "ann", UID: "7", Groups: []string{"team", "system:authenticated"},
			Extra: map[string]authenticationv1.ExtraValue{"scopes": {"all"}, "example.com/key": {"v"}},
		}, false},
		{"headers alone", nil, headers, nil, false},
		{"another name of the same circle", ours.issue(t, "ann", nil, x509.ExtKeyUsageClientAuth, time.Hour), headers, nil, true},
		{"the name in another circle", others.issue(t, "front-proxy-client", nil, x509.ExtKeyUsageClientAuth, time.Hour), headers, nil, true},
		{"no user", front, nil, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := proxy.Authenticate(request(c.pair, c.headers...))
			if diff := cmp.Diff(c.want, got); diff != "" || (err != nil) != c.fail {
				t.Errorf("error %v, difference: %s", err, diff)
			}
		})
	}
	config.Data = nil
	if err := NewFrontProxy(fake.NewClientBuilder().WithObjects(config).Build()).Check(t.Context()); !errors.Is(err, ErrNoFrontProxy) {
		t.Errorf("without an aggregation layer: got %v", err)
	}
}

// apiServer answers reviews and counts them.
type apiServer struct {
	tokens map[string]string
	rights map[string]bool
	asked  int
}

func (a *apiServer) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	a.asked++
	switch review := object.(type) {
	case *authenticationv1.TokenReview:
		review.Status.User.Username, review.Status.Authenticated = a.tokens[review.Spec.Token], a.tokens[review.Spec.Token] != ""
	case *authorizationv1.SubjectAccessReview:
		at := review.Spec.ResourceAttributes
		review.Status.Allowed = a.rights[review.Spec.User+" "+at.Verb+" "+at.Resource+"/"+at.Subresource]
	default:
		return errors.New("no review")
	}
	return nil
}

func TestGate(t *testing.T) {
	api := &apiServer{tokens: map[string]string{"secret": "ann"}, rights: map[string]bool{"ann get nodes/metrics": true}}
	gate := NewGate(api, Tokens(api))
	now := time.Now()
	gate.verdicts.now = func() time.Time { return now }
	right := func(subresource string) authorizationv1.ResourceAttributes {
		return authorizationv1.ResourceAttributes{Verb: "get", Group: "core.pinnace.dev", Resource: "nodes", Subresource: subresource, Name: "a"}
	}
	for _, header := range []string{"", "Basic secret", "Bearer other", "Bearer "} {
		if _, err := gate.Authenticate(request(nil, "Authorization", header)); !apierrors.IsUnauthorized(err) {
			t.Errorf("%q: got %v", header, err)
		}
	}
	user, err := gate.Authenticate(request(nil, "Authorization", "Bearer secret"))
	if err != nil || user.Username != "ann" {
		t.Fatalf("got %v, %v", user, err)
	}
	if err := gate.Authorize(t.Context(), user, right("proxy"), right("metrics")); err != nil {
		t.Errorf("one of two rights: got %v", err)
	}
	if err := gate.Authorize(t.Context(), user, right("proxy")); !apierrors.IsForbidden(err) {
		t.Errorf("no right: got %v", err)
	}
	asked := api.asked
	if err := gate.Authorize(t.Context(), user, right("metrics")); err != nil || api.asked != asked {
		t.Errorf("a second time: got %v after %d more questions", err, api.asked-asked)
	}
	if err := gate.Authorize(t.Context(), &authenticationv1.UserInfo{Username: "ann2"}, right("metrics")); !apierrors.IsForbidden(err) {
		t.Errorf("another user: got %v", err)
	}
	// A right that was taken away acts after a while.
	api.rights = nil
	now = now.Add(allowedFor + time.Second)
	if err := gate.Authorize(t.Context(), user, right("metrics")); !apierrors.IsForbidden(err) {
		t.Errorf("a right that was taken away: got %v", err)
	}
}

func TestUserKeyTellsUsersApart(t *testing.T) {
	users := []*authenticationv1.UserInfo{
		{Username: "a"}, {Username: "a", UID: "1"}, {Username: "a", Groups: []string{"b"}}, {Username: "a", Groups: []string{"b", "c"}},
		{Username: "a", Groups: []string{"bc"}}, {Username: "ab"}, {Username: "a", Extra: map[string]authenticationv1.ExtraValue{"b": {"c"}}},
		{Username: "a", Extra: map[string]authenticationv1.ExtraValue{"b": {"c", "d"}}}, {Username: "a", Extra: map[string]authenticationv1.ExtraValue{"bc": {}}},
	}
	seen := map[string]int{}
	for i, u := range users {
		if other, ok := seen[userKey(u)]; ok {
			t.Errorf("%v and %v have one key", users[other], u)
		}
		seen[userKey(u)] = i
	}
}

// TestServers tells servers apart by their keys and by their names.
func TestServers(t *testing.T) {
	ours, others := newCircle(t), newCircle(t)
	mine := ours.issue(t, "node-1", nil, x509.ExtKeyUsageServerAuth, time.Hour)
	pinned, err := Pin(mine)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		server *tls.Certificate
		client *tls.Config
		fail   bool
	}{
		{"the key", mine, PinnedTLS(pinned), false},
		{"another key", ours.issue(t, "node-1", nil, x509.ExtKeyUsageServerAuth, time.Hour), PinnedTLS(pinned), true},
		{"no key", mine, PinnedTLS(""), true},
		{"the name", mine, NamedTLS("node-1", ours.pool), false},
		{"another name", mine, NamedTLS("node-2", ours.pool), true},
		{"another circle", mine, NamedTLS("node-1", others.pool), true},
		{"a client's certificate", ours.issue(t, "node-1", nil, x509.ExtKeyUsageClientAuth, time.Hour), NamedTLS("node-1", ours.pool), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = ServerTLS(func() (*tls.Certificate, error) { return c.server, nil })
			server.TLS.Certificates = []tls.Certificate{*c.server} // else httptest would add its own
			server.StartTLS()
			defer server.Close()
			connection, err := tls.Dial("tcp", server.Listener.Addr().String(), c.client)
			if (err != nil) != c.fail {
				t.Errorf("got %v", err)
			}
			if err == nil {
				_ = connection.Close()
			}
		})
	}
}

func TestFilesAreReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.crt")
	read := AuthorityFile(path)
	if _, err := read(); err == nil {
		t.Error("a missing file was read")
	}
	first, second := newCircle(t), newCircle(t)
	for i, c := range []*circle{first, second} {
		if err := os.WriteFile(path, c.pem(), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		got, err := read()
		want, _ := c.pool()
		if err != nil || !got.Equal(want) {
			t.Errorf("file %d: got another pool, %v", i, err)
		}
	}
	// While a file is being replaced, what it held holds.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want, _ := second.pool()
	if got, err := read(); err != nil || !got.Equal(want) {
		t.Errorf("a file that has gone: got another pool, %v", err)
	}
}
