#!/usr/bin/env bash
# Everything that CI runs, in order of what fails soonest. `make test` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

started=$SECONDS
step() {
  printf '\n\033[1m== %s\033[0m (%d s)\n' "$1" $((SECONDS - started))
  shift
  "$@"
}

# fresh fails when generated files differ from what the types and markers say.
fresh() {
  local before after
  before=$(git ls-files -z -co --exclude-standard -- api config docs PROJECT go.mod go.sum | sort -z | xargs -0 sha256sum 2>/dev/null)
  make --no-print-directory generate
  go mod tidy
  after=$(git ls-files -z -co --exclude-standard -- api config docs PROJECT go.mod go.sum | sort -z | xargs -0 sha256sum 2>/dev/null)
  if [[ $before != "$after" ]]; then
    diff <(echo "$before") <(echo "$after") >&2 || true
    echo 'Generated files are out of date: run `make generate tidy` and commit the result.' >&2
    return 1
  fi
}

# tests tells in the end what failed and what was skipped, each with its own output.
tests() { bin/tools/gotestsum --format pkgname --format-hide-empty-pkg -- "$@"; }

if [[ $(id -u) -ne 0 ]]; then
  printf '\n*** Not root: the tests on real containers are SKIPPED. Run `sudo make test` for all of them. ***\n'
fi

step 'Programs from source' make --no-print-directory assets build images
step 'Generated files are fresh' fresh
step 'Linters and floors' make --no-print-directory lint
step 'The assets driver' go -C hack/assets test .
# Two packages at a time: many start an API server, and there may be two cores only.
step 'Unit and envtest' tests -p 2 -timeout 25m $(go list ./... | grep -v -e /test/nodesuite -e /test/e2e -e /test/conformance/controllers -e /test/conformance/schema)
# The node suite waits for containers more than it computes, so the rest runs beside it.
make --no-print-directory node-suite >bin/node-suite.log 2>&1 &
suite=$!
trap 'wait "$suite"' EXIT # Killed, it would leave its containers behind.
step 'Schema oracle' make --no-print-directory oracle-schema
step 'Controller oracle' make --no-print-directory oracle-controllers
step 'End to end on real containers' tests -count=1 -timeout 25m ./test/e2e
trap - EXIT
step 'Node suite on real containers, begun before the oracles' wait "$suite" || { cat bin/node-suite.log; grep -E '^ *(---|node suite:|chaos:)' bin/node-suite.log || true; exit 1; }
tail -n 3 bin/node-suite.log
printf '\nAll tests passed in %d s.\n' $((SECONDS - started))
