// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package env gives tests a real API server, with Pinnace's CRDs installed and,
// on request, the heartbeat of the generic loops of kube-controller-manager
// (namespaces are emptied, orphans are collected, service accounts appear).
//
// Tests of any room, and of other modules, may import it. One API server
// serves all tests of a package when its TestMain calls Main:
//
//	func TestMain(m *testing.M) { os.Exit(env.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		e := env.Start(t)
//		ns := e.Namespace(t)
//		…
//	}
//
// Without Main, each Start has a server of its own. The programs come from
// $KUBEBUILDER_ASSETS or from bin/assets of the module (`make assets`). Where
// they are missing, a test fails when CI is set, and is skipped with a loud
// word otherwise.
package env
