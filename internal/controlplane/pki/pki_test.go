// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	day   = 24 * time.Hour
	leaf  = Leaf{
		Name: "server", CommonName: "pinnace", Organizations: []string{"b", "a"},
		DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true,
	}
)

func openAuthority(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir, "ca", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ensure(t *testing.T, a *Authority, dir string, l Leaf, now time.Time) Pair {
	t.Helper()
	p, err := a.EnsureLeaf(dir, l, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEnsureLeaf(t *testing.T) {
	other := leaf
	other.DNSNames = []string{"localhost", "registry"}
	renamed := leaf
	renamed.CommonName = "somebody"
	client := leaf
	client.Client = true
	reordered := leaf
	reordered.Organizations = []string{"a", "b"}

	for _, tc := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		leaf   Leaf
		after  time.Duration
		want   string
	}{
		{name: "fresh", leaf: leaf, want: ""},
		{name: "the order of groups does not matter", leaf: reordered, want: ""},
		{name: "just more than a third left", leaf: leaf, after: 243 * day, want: ""},
		{name: "less than a third left", leaf: leaf, after: 244 * day, want: "less than a third of its life was left"},
		{name: "expired", leaf: leaf, after: 366 * day, want: "it had expired"},
		{name: "the clock went back", leaf: leaf, after: -day, want: "it was not valid yet"},
		{name: "another name", leaf: other, want: "its server names were others"},
		{name: "another subject", leaf: renamed, want: "its subject was another"},
		{name: "another use", leaf: client, want: "its usages were others"},
		{name: "certificate lost", leaf: leaf, damage: remove("server.crt"), want: "there was none"},
		{name: "certificate damaged", leaf: leaf, damage: overwrite("server.crt"), want: "it was damaged"},
		{name: "key lost", leaf: leaf, damage: remove("server.key"), want: "its key was missing or another's"},
		{name: "key damaged", leaf: leaf, damage: overwrite("server.key"), want: "its key was missing or another's"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			// The authority is older, so that a clock that went back stays within its life.
			a := openAuthority(t, dir, epoch.Add(-30*day))
			first := ensure(t, a, dir, leaf, epoch)
			if first.Renewed == "" {
				t.Error("the first certificate was not made")
			}
			if tc.damage != nil {
				tc.damage(t, dir)
			}
			now := epoch.Add(tc.after)
			got := ensure(t, openAuthority(t, dir, now), dir, tc.leaf, now)
			if diff := cmp.Diff(tc.want, got.Renewed); diff != "" {
				t.Errorf("reason for the renewal (-want +got):\n%s", diff)
			}
			verify(t, a, got, now)
			if again := ensure(t, a, dir, tc.leaf, now); again.Renewed != "" {
				t.Errorf("renewed twice: %s", again.Renewed)
			}
		})
	}
}

func verify(t *testing.T, a *Authority, p Pair, now time.Time) {
	t.Helper()
	data, err := os.ReadFile(p.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCert(data)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CertPEM())
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: "127.0.0.1", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		t.Errorf("the certificate is not good: %v", err)
	}
	if info, err := os.Stat(p.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v; want 0600", info.Mode(), err)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life > LeafLife+backdate {
		t.Errorf("the certificate lives %s, want a year", life)
	}
}

// TestForeignAuthority sees that a certificate of another authority is not kept.
func TestForeignAuthority(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	ensure(t, openAuthority(t, elsewhere, epoch), dir, leaf, epoch)
	got := ensure(t, openAuthority(t, dir, epoch), dir, leaf, epoch)
	if want := "it was signed by another authority"; got.Renewed != want {
		t.Errorf("renewed for %q, want %q", got.Renewed, want)
	}
}

func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	first := openAuthority(t, dir, epoch)
	if got := first.cert.NotAfter.Sub(epoch); got != AuthorityLife {
		t.Errorf("the authority lives %s, want %s", got, AuthorityLife)
	}
	second := openAuthority(t, dir, epoch.Add(9*365*day))
	if !second.cert.Equal(first.cert) {
		t.Error("the authority was made anew")
	}
	// A leaf never outlives its authority.
	late := epoch.Add(AuthorityLife - 10*day)
	if p := ensure(t, second, dir, leaf, late); p.NotAfter.After(first.cert.NotAfter) {
		t.Errorf("the leaf lives until %s, its authority until %s", p.NotAfter, first.cert.NotAfter)
	}
	if _, err := OpenAuthority(dir, "ca", epoch.Add(AuthorityLife+day)); err == nil {
		t.Error("an expired authority was opened")
	}
	remove("ca.key")(t, dir)
	if _, err := OpenAuthority(dir, "ca", epoch); err == nil {
		t.Error("an authority without its key was opened, or made anew in silence")
	}
	// What a crash between key and certificate leaves: nothing was signed yet.
	remove("ca.crt")(t, dir)
	overwrite("ca.key")(t, dir)
	openAuthority(t, dir, epoch)
}

func TestEnsureSigningKey(t *testing.T) {
	dir := t.TempDir()
	key, pub, err := EnsureSigningKey(dir, "sa")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(key)
	remove("sa.pub")(t, dir)
	if _, _, err := EnsureSigningKey(dir, "sa"); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(key)
	if string(before) != string(after) || len(after) == 0 {
		t.Error("the signing key was not kept")
	}
	if _, err := os.Stat(pub); err != nil {
		t.Errorf("the public key was not made again: %v", err)
	}
	overwrite("sa.key")(t, dir)
	if _, _, err := EnsureSigningKey(dir, "sa"); err == nil {
		t.Error("a damaged signing key was replaced in silence")
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func overwrite(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
