#!/usr/bin/env bash
# Runs the node suites on Debian's containerd and runc, an older runtime than that of the assets. The packages are unpacked into
# bin/debian, and nothing is installed. Where they can't be had (no root, no Debian, no network), it says so and is content.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  printf '\n*** SKIPPED: the node suites on Debian'"'"'s containerd: %s ***\n\n' "$1" >&2
  exit 0
}

[[ $(id -u) -eq 0 ]] || skip 'real containers need root'
dir=$PWD/bin/debian
if [[ ! -x $dir/usr/bin/containerd || ! -x $dir/usr/sbin/runc ]]; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || skip 'this is no Debian'
  download=$(mktemp -d)
  trap 'rm -rf "$download"' EXIT
  (cd "$download" && apt-get download containerd runc >log 2>&1) || skip "apt-get can't download it: $(tail -1 "$download/log")"
  mkdir -p "$dir"
  for package in "$download"/*.deb; do dpkg -x "$package" "$dir"; done
fi
"$dir/usr/sbin/runc" --version >/dev/null 2>&1 || skip 'its runc does not run here (libseccomp2 is missing?)'

export PINNACE_TEST_RUNTIME=$dir/usr/bin
go test -count=1 -timeout 10m -run TestOnRealContainers/a_runtime_that_is_there ./test/e2e
go test -count=1 -timeout 15m -run TestOnContainerd ./test/agent
go -C test/nodesuite test -count=1 -timeout 15m -run TestNodeSuite
