// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package endpoints decides which EndpointSlices a service has, by the rules of upstream's endpointslice controller
// (k8s.io/endpointslice) and, for services without a selector, of its mirroring controller. It is pure: objects in,
// changes out. controllers/network/endpointslice enters, and whoever needs to know who is behind a service.
package endpoints
