// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestRefuses asks a registry that wants a password and has no images.
func TestRefuses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case user != "puller" || password != "sesame":
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
		case r.URL.Path != "/v2/":
			http.Error(w, "no such image", http.StatusNotFound)
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for name, c := range map[string]struct {
		user, password string
		want           bool
	}{
		"nobody":             {"", "", true},
		"the wrong password": {"puller", "open", true},
		"no such image":      {"puller", "sesame", false},
	} {
		got, err := Refuses(t.Context(), host+"/app:1", c.user, c.password)
		if err != nil || got != c.want {
			t.Errorf("%s: got %t, %v; want %t", name, got, err, c.want)
		}
	}
	server.Close()
	if _, err := Refuses(t.Context(), host+"/app:1", "", ""); err == nil {
		t.Error("a registry that isn't there was asked without an error")
	}
}
