#!/usr/bin/env bash
# What `make up` does once everything is built: it runs `pinnace up`, applies the sample, shows it and stays.
# Each command that you could type yourself is printed before it runs.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
up=
# Ctrl-C reaches `pinnace up` and this script alike; the script waits until `pinnace up` has stopped everything.
finish() {
  if [[ -n $up ]] && kill -0 "$up" 2>/dev/null; then
    kill -INT "$up" 2>/dev/null || true
    wait "$up" || true
  fi
  rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT TERM

show() {
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

# Job control gives `pinnace up` a process group of its own, so that Ctrl-C doesn't stop it twice.
set -m
# bin/assets has all programs, those of another $KUBEBUILDER_ASSETS as links.
bin/pinnace up --assets-dir bin/assets "$@" > >(tee "$log") &
up=$!
set +m

kubeconfig=
until [[ -n $kubeconfig ]]; do
  kill -0 "$up" 2>/dev/null || { wait "$up" || exit $?; exit 0; }
  kubeconfig=$(sed -n 's/^ *export KUBECONFIG=//p' "$log" | head -n 1)
  sleep 0.2
done
export KUBECONFIG=$kubeconfig
PATH=$PWD/bin:$PWD/bin/assets:$PATH

# The nodes come up after the API; pods wait for them.
until grep -q '^Pinnace is up' "$log"; do
  kill -0 "$up" 2>/dev/null || { wait "$up" || exit $?; exit 0; }
  sleep 0.2
done

data=$(dirname "$kubeconfig")
endpoint=$(sed -nE 's/.* --runtime-endpoint[= ]([^ ]*).*/\1/p' <<<" $* ")
if [[ -n $endpoint ]]; then
  show ctr --address "${endpoint#unix://}" -n k8s.io images import bin/images/hello.tar
elif [[ " $* " != *" simulated "* && " $* " != *"=simulated "* ]]; then
  show pinnace image load --data-dir "$data" bin/images/hello.tar
fi
show kubectl apply --server-side -f config/samples/hello/hello.yaml
show kubectl wait --for=condition=Ready pdeploy/hello -n hello --timeout=120s
show kubectl get pdeploy,prs,ppo,psvc,pcm -n hello

vip=$(kubectl get psvc/hello -n hello -o jsonpath='{.spec.clusterIP}')
if [[ " $* " == *" simulated "* || " $* " == *"=simulated "* ]]; then
  printf '\nThe nodes are simulated: no process answers on %s.\n' "$vip"
else
  printf '\n\033[1m$ for i in {1..10}; do curl -s http://%s; done\033[0m\n' "$vip"
  answers=$(for _ in {1..20}; do curl -fsS --max-time 5 "http://$vip"; done)
  head -n 10 <<<"$answers"
  pods=$(grep -o 'from [^ ]*' <<<"$answers" | sort -u | wc -l)
  printf '\n%s different pods answered on the address %s.\n' "$pods" "$vip"
  (( pods >= 2 )) || { echo 'Expected at least two different pods to answer.' >&2; exit 1; }
fi
printf '\nThe sample runs. In another terminal:\n  export KUBECONFIG=%s\n  %s get ppo -n hello\nCtrl-C stops everything.\n' \
  "$kubeconfig" "bin/assets/kubectl"
wait "$up"
