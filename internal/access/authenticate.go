// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// Certificates knows users by client certificates of the given authorities: the common name is the user, the
// organisations are the groups, as for the API server.
func Certificates(authorities func() (*x509.CertPool, error)) Authenticator {
	return certificates{authorities}
}

type certificates struct {
	authorities func() (*x509.CertPool, error)
}

func (c certificates) Authenticate(r *http.Request) (*authenticationv1.UserInfo, error) {
	pool, err := c.authorities()
	if err != nil {
		return nil, err
	}
	leaf, err := verify(r, pool)
	if leaf == nil || err != nil {
		return nil, err
	}
	if leaf.Subject.CommonName == "" {
		return nil, errors.New("the client certificate names no user")
	}
	return &authenticationv1.UserInfo{
		Username: leaf.Subject.CommonName,
		Groups:   append(leaf.Subject.Organization[:len(leaf.Subject.Organization):len(leaf.Subject.Organization)], "system:authenticated"),
	}, nil
}

// verify returns the certificate that the client showed and proved, once an authority vouches for it; nil without one.
func verify(r *http.Request, pool *x509.CertPool) (*x509.Certificate, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	others := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		others.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("verifying the client certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	return leaf, nil
}

// Tokens knows users by bearer tokens, for which it asks the API server.
func Tokens(reviewer Reviewer) Authenticator {
	return &tokens{reviewer: reviewer, users: newMemo[*authenticationv1.UserInfo](time.Now)}
}

type tokens struct {
	reviewer Reviewer
	users    *memo[*authenticationv1.UserInfo]
}

func (t *tokens) Authenticate(r *http.Request) (*authenticationv1.UserInfo, error) {
	scheme, token, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, nil
	}
	key := digest(token)
	if user, ok := t.users.get(key); ok {
		if user == nil {
			return nil, errors.New("the bearer token is not valid")
		}
		return user, nil
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if err := t.reviewer.Create(r.Context(), review); err != nil {
		return nil, fmt.Errorf("asking about the bearer token: %w", err)
	}
	if !review.Status.Authenticated {
		t.users.put(key, nil, deniedFor)
		return nil, errors.New("the bearer token is not valid")
	}
	user := review.Status.User
	t.users.put(key, &user, allowedFor)
	return &user, nil
}
