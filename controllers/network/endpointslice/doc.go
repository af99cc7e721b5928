// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package endpointslice keeps the EndpointSlices of services: of the pods that a selector matches, or of a hand-made
// Endpoints object. It runs in the manager and is the only writer of the slices that carry its marks. What the slices
// should be is decided in internal/endpoints, which is why there is no plan.go here.
package endpointslice
