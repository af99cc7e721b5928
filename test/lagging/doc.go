// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lagging is the world of the property tests of controllers: an API server that remembers every write, a cache that shows a
// prefix of what was written, and a controller that may die between any two writes.
//
// The API server is controller-runtime's fake client, with the preconditions that it leaves unchecked. Everybody but the controller uses
// World.Truth. The controller gets World.Client, which reads from the cache and writes to the API server as long as its budget lasts, and
// World.Live, which reads past the cache. The cache lags for each kind by itself, as each kind has a watch of its own: World.See lets it
// catch up, and tells the controller what ended, as a watch handler does.
//
//	type model struct {
//		*lagging.World
//		r *Reconciler
//	}
//
//	func (m *model) restart() {
//		m.r = NewReconciler(m.Client(), m.Live())
//		m.SeeAll()
//	}
//
// A room keeps what is its own: what happens beside the controller, and what must hold. Property tests of controllers enter, and nobody else.
package lagging
