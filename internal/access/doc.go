// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package access tells a server of ours who asks and whether they may: by client certificate, by bearer token
// (TokenReview) or by the headers of the API server's aggregation layer, and by SubjectAccessReview with a short cache.
// It also reads certificates from files that are renewed while the server runs. The one thing outside is the API
// server. internal/nodeserver and internal/subresources enter, as does internal/setup.
package access
