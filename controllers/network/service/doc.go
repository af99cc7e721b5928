// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package service gives services their cluster addresses and node ports, fills in what upstream's API server would
// (address families, traffic policies), and reports. It runs in the manager and is the only writer of these fields when
// the user left them empty, and of the services' status.
//
// No two services ever hold one address: there is one worker, its choices are compared with every service in the cache
// and with its own writes that the cache doesn't show yet, and before its first choice it reads all services past the
// cache once, so that the last writes of a manager that died are seen too.
package service
