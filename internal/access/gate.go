// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Authenticator finds out who sent a request. It returns nil and no error when the request holds nothing that it knows.
// It is safe for concurrent use.
type Authenticator interface {
	Authenticate(r *http.Request) (*authenticationv1.UserInfo, error)
}

// Reviewer posts reviews to the API server; a client.Client does.
type Reviewer interface {
	Create(ctx context.Context, object client.Object, opts ...client.CreateOption) error
}

// How long the API server's word is taken for true: a right that is taken away acts on new requests after this time.
const (
	allowedFor = 10 * time.Second
	deniedFor  = 3 * time.Second
)

// Gate lets in who may. It is safe for concurrent use.
type Gate struct {
	authenticators []Authenticator
	reviewer       Reviewer
	verdicts       *memo[verdict]
}

type verdict struct {
	allowed bool
	reason  string
}

// NewGate makes a gate that asks the authenticators in order and then, for the right, the API server.
func NewGate(reviewer Reviewer, authenticators ...Authenticator) *Gate {
	return &Gate{authenticators: authenticators, reviewer: reviewer, verdicts: newMemo[verdict](time.Now)}
}

// Authenticate returns who sent the request, or an error of the API with the code 401.
func (g *Gate) Authenticate(r *http.Request) (*authenticationv1.UserInfo, error) {
	var failures []error
	for _, a := range g.authenticators {
		user, err := a.Authenticate(r)
		if user != nil {
			return user, nil
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil {
		return nil, apierrors.NewUnauthorized("Unauthorized: " + err.Error())
	}
	return nil, apierrors.NewUnauthorized("Unauthorized: show a client certificate or a bearer token")
}

// Authorize asks whether the user may do any of the given things, in order. Without a right it returns an error of the
// API with the code 403, and with 500 when the API server can't be asked.
func (g *Gate) Authorize(ctx context.Context, user *authenticationv1.UserInfo, attributes ...authorizationv1.ResourceAttributes) error {
	var refused error
	for _, a := range attributes {
		v, err := g.ask(ctx, user, a)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("asking whether %s may: %w", user.Username, err))
		}
		if v.allowed {
			return nil
		}
		if refused == nil {
			refused = forbidden(user, a, v.reason)
		}
	}
	return refused
}

func (g *Gate) ask(ctx context.Context, user *authenticationv1.UserInfo, a authorizationv1.ResourceAttributes) (verdict, error) {
	key := digest(userKey(user), a.Verb, a.Group, a.Resource, a.Subresource, a.Namespace, a.Name)
	if v, ok := g.verdicts.get(key); ok {
		return v, nil
	}
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for k, v := range user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		ResourceAttributes: &a, User: user.Username, Groups: user.Groups, UID: user.UID, Extra: extra,
	}}
	if err := g.reviewer.Create(ctx, review); err != nil {
		return verdict{}, err
	}
	v := verdict{allowed: review.Status.Allowed && !review.Status.Denied, reason: review.Status.Reason}
	lives := deniedFor
	if v.allowed {
		lives = allowedFor
	}
	g.verdicts.put(key, v, lives)
	return v, nil
}

// forbidden says it as the API server does.
func forbidden(user *authenticationv1.UserInfo, a authorizationv1.ResourceAttributes, reason string) error {
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	message := fmt.Sprintf("User %q cannot %s resource %q in API group %q", user.Username, a.Verb, resource, a.Group)
	if a.Namespace != "" {
		message += fmt.Sprintf(" in the namespace %q", a.Namespace)
	} else {
		message += " at the cluster scope"
	}
	if reason != "" {
		message += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: resource}, a.Name, errors.New(message))
}

// userKey says everything that a right may depend on.
func userKey(user *authenticationv1.UserInfo) string {
	extra := make([]string, 0, len(user.Extra))
	for k, v := range user.Extra {
		extra = append(extra, digest(append([]string{k}, v...)...))
	}
	slices.Sort(extra)
	return digest(user.Username, user.UID, digest(user.Groups...), strings.Join(extra, ""))
}
