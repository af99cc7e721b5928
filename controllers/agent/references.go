// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	backoffs "k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podenv"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// references reads the ConfigMaps and Secrets of pods: Pinnace's object first, then the native one of the same name. What was
// read is shared by the pods that need it, and read again when it is older than its reader allows.
type references struct {
	reader client.Reader

	mu      sync.Mutex
	entries map[referenceKey]*referenceEntry
}

type referenceKey struct{ kind, namespace, name string }

// content is a ConfigMap's or a Secret's data, as bytes.
type content struct {
	data map[string][]byte
	// text says which keys are text (not binaryData), which alone may stand in the environment.
	text       map[string]bool
	secretType corev1.SecretType
	// pullSecrets are those that a service account names; it has no data.
	pullSecrets []string
}

// kindAccount is a service account, of which only its pull secrets are read.
const kindAccount = "ServiceAccount"

type referenceEntry struct {
	mu    sync.Mutex
	found *content
	read  time.Time
}

// referencesKept bounds what is kept of references that nobody asks for any more.
const referencesKept = 10 * time.Minute

func newReferences(reader client.Reader) *references {
	return &references{reader: reader, entries: map[referenceKey]*referenceEntry{}}
}

// get returns the content as it was at since or later; nil when there is no such object.
func (r *references) get(ctx context.Context, kind, namespace, name string, since, now time.Time) (*content, error) {
	entry := r.entry(referenceKey{kind, namespace, name}, now)
	entry.mu.Lock()
	defer entry.mu.Unlock()
	if !entry.read.IsZero() && !entry.read.Before(since) {
		return entry.found, nil
	}
	var found *content
	err := retryForbidden(ctx, func() (err error) {
		switch kind {
		case "Secret":
			found, err = r.secret(ctx, namespace, name)
		case kindAccount:
			found, err = r.account(ctx, namespace, name)
		default:
			found, err = r.configMap(ctx, namespace, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s %s/%s: %w", strings.ToLower(kind), namespace, name, err)
	}
	entry.found, entry.read = found, now
	return found, nil
}

// untilAllowed bounds how long a new pod waits for its node's right to read what it refers to, which the manager grants when it sees the
// pod on the node, as the agent does.
var untilAllowed = backoffs.Backoff{Duration: 10 * time.Millisecond, Factor: 2, Steps: 9, Cap: time.Second}

// retryForbidden tries again for a few seconds while the API server says that this agent may not.
func retryForbidden(ctx context.Context, do func() error) error {
	return retry.OnError(untilAllowed, func(err error) bool { return apierrors.IsForbidden(err) && ctx.Err() == nil }, do)
}

func (r *references) entry(key referenceKey, now time.Time) *referenceEntry {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.entries[key]
	if entry == nil {
		for old, e := range r.entries {
			if e.mu.TryLock() {
				if !e.read.IsZero() && now.Sub(e.read) > referencesKept {
					delete(r.entries, old)
				}
				e.mu.Unlock()
			}
		}
		entry = &referenceEntry{}
		r.entries[key] = entry
	}
	return entry
}

func (r *references) configMap(ctx context.Context, namespace, name string) (*content, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	ours := &pcorev1.ConfigMap{}
	err := r.reader.Get(ctx, key, ours)
	if err == nil {
		return textContent(ours.Data, ours.BinaryData), nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	native := &corev1.ConfigMap{}
	if err := r.reader.Get(ctx, key, native); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return textContent(native.Data, native.BinaryData), nil
}

func (r *references) secret(ctx context.Context, namespace, name string) (*content, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	ours := &pcorev1.Secret{}
	err := r.reader.Get(ctx, key, ours)
	if err == nil {
		// A custom resource keeps stringData as it was written; it is laid over data here.
		return secretContent(ours.Data, ours.StringData, ours.Type), nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	native := &corev1.Secret{}
	if err := r.reader.Get(ctx, key, native); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return secretContent(native.Data, nil, native.Type), nil
}

func (r *references) account(ctx context.Context, namespace, name string) (*content, error) {
	account := &corev1.ServiceAccount{}
	if err := r.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, account); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return &content{pullSecrets: podstate.PullSecrets(account)}, nil
}

func textContent(data map[string]string, binary map[string][]byte) *content {
	out := &content{data: make(map[string][]byte, len(data)+len(binary)), text: make(map[string]bool, len(data))}
	for key, value := range binary {
		out.data[key] = value
	}
	for key, value := range data {
		out.data[key], out.text[key] = []byte(value), true
	}
	return out
}

func secretContent(data map[string][]byte, plain map[string]string, kind corev1.SecretType) *content {
	out := &content{data: make(map[string][]byte, len(data)), text: map[string]bool{}, secretType: kind}
	for key, value := range data {
		out.data[key], out.text[key] = value, true
	}
	for key, value := range plain {
		out.data[key], out.text[key] = []byte(value), true
	}
	return out
}

// environment gathers what the container's environment refers to.
func (r *references) environment(ctx context.Context, namespace string, c *corev1.Container, since, now time.Time) (podenv.Objects, error) {
	out := podenv.Objects{}
	for _, ref := range podenv.References(c) {
		found, err := r.get(ctx, ref.Kind, namespace, ref.Name, since, now)
		if err != nil {
			return out, err
		}
		if found == nil {
			continue
		}
		if ref.Kind == "Secret" {
			set(&out.Secrets, ref.Name, found.data)
			continue
		}
		values := make(map[string]string, len(found.text))
		for key := range found.text {
			values[key] = string(found.data[key])
		}
		set(&out.ConfigMaps, ref.Name, values)
	}
	return out, nil
}
