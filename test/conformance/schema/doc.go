// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package schema is the schema oracle: upstream's API server judges ours.
//
// The same manifest goes, on one API server, to the native kind and, by the
// suffix rule, to Pinnace's kind, as a dry run with strict field validation.
// The verdict (accepted or refused) and the object that comes back, with all
// its defaults, must agree. An update case makes the object first and then
// tries the change as a dry run, for rules such as immutability.
//
// Where the manifests come from:
//   - every document of the corpus beside the repository (../shared/corpus);
//   - testdata/*.yaml: for each kind a base manifest and named edits of it. To
//     add a case, add a line there; testdata/README.md says how;
//   - a generator with a fixed seed that breaks the bases at random places.
//
// A difference fails the test unless differences.yaml lists it with its reason;
// a listed one that no longer occurs fails it too. docs/parity.md carries the
// list for readers, and a test keeps the two equal:
//
//	go test ./test/conformance/schema -run TestParity -update
//
// Who may enter: nobody imports this room; it imports the suffix table and
// test/env, and it talks to an API server only.
package schema
