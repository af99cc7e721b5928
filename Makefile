# Pinnace. `make help` lists what there is; each target installs and builds what it needs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UP_FLAGS ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/pinnace-dev/pinnace/internal/version.Version=$(VERSION)
ASSETS := $(CURDIR)/bin/assets
LINT := bin/tools/golangci-lint
GOTESTSUM := bin/tools/gotestsum
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

export KUBEBUILDER_ASSETS ?= $(ASSETS)

##@ Run

.PHONY: up
up: assets build images ## Run Pinnace with the sample until Ctrl-C; UP_FLAGS="--data-dir D --nodes 2" is passed on.
	@hack/up.sh $(UP_FLAGS)

##@ Build

.PHONY: build
build: ## Build bin/pinnace and kubectl's plugin, bin/kubectl-pinnace.
	$(GO_BUILD) -o bin/pinnace ./cmd/pinnace
	@# It was a link to bin/pinnace once, through which the next line would write.
	@if [[ -L bin/kubectl-pinnace ]]; then rm bin/kubectl-pinnace; fi
	$(GO_BUILD) -o bin/kubectl-pinnace ./cmd/kubectl-pinnace

.PHONY: assets
assets: ## Build etcd, kube-apiserver, containerd, runc, … from source into bin/assets (first time: about 8 minutes).
	@go -C hack/assets run . all

.PHONY: peers
peers: ## Build what comparisons with upstream need: kube-scheduler, kubelet, kube-proxy, kwok.
	@go -C hack/assets run . peers

.PHONY: images
images: ## Build the sample's image into bin/images.
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/images/hello ./config/samples/hello/server
	go run ./hack/image -binary bin/images/hello -tag pinnace.dev/hello:v1 -o bin/images/hello.tar

##@ Develop

.PHONY: generate
generate: ## Regenerate deepcopy code, CRDs and roles from the types and markers.
	go tool controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...
	go run ./hack/schema

.PHONY: lint
lint: $(LINT) ## Run the linters, the floors of the house among them.
	$(LINT) run ./...

.PHONY: tidy
tidy: ## Tidy go.mod.
	go mod tidy

$(LINT): hack/tools/go.mod
	go -C hack/tools build -o ../../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(GOTESTSUM): hack/tools/go.mod
	go -C hack/tools build -o ../../$(GOTESTSUM) gotest.tools/gotestsum

##@ Test

.PHONY: test
test: $(GOTESTSUM) ## Everything that CI runs: fresh files, lint, unit, schema oracle, envtest, end to end.
	@hack/test.sh

.PHONY: unit
unit: ## The tests that need nothing but Go.
	go test -short ./...

.PHONY: oracle-schema
oracle-schema: assets ## Compare our schemas with upstream's kinds on the same API server.
	go test -count=1 -v ./test/conformance/schema

.PHONY: oracle-controllers
oracle-controllers: assets ## Compare our controllers with upstream's on the same API server, scenario by scenario.
	@go -C hack/assets run . kube-scheduler
	@# In the folder itself, so that go test prints what the oracle counted.
	go -C test/conformance/controllers test -count=1 -timeout 15m

.PHONY: e2e
e2e: assets build images ## The sample on real containers: start, answer, kill -9 of every process, restart.
	go test -count=1 -timeout 20m -p 1 -v ./test/e2e ./test/subresources

.PHONY: node-suite
node-suite: assets ## What upstream documents of a pod's life, and a short chaos, on real containers (root); PINNACE_TEST_RUNTIME=DIR for another containerd.
	@# In the folder itself, so that go test prints what the suite counted.
	go -C test/nodesuite test -count=1 -timeout 15m -run 'TestCases|TestNodeSuite'
	go -C test/nodesuite test -count=1 -timeout 10m -run TestChaos -args -kills 12 -pods 12 -seed 21

.PHONY: node-suite-debian
node-suite-debian: assets build images ## The node suites on Debian's containerd and runc, which apt-get downloads.
	@hack/node-suite-debian.sh

.PHONY: chaos
chaos: assets ## 200 random kills of containers, shims, containerd and agent under 30 pods (root); CHAOS_FLAGS="-kills 20 -seed 7".
	go -C test/nodesuite test -count=1 -timeout 40m -run TestChaos -args $(or $(CHAOS_FLAGS),-kills 200)

.PHONY: bench
bench: assets peers build images ## Measure start, memory, idle CPU, time to ready, and pods a second beside upstream's; tables, and bin/bench*.json.
	go run ./test/bench -o bin/bench.json
	go run ./test/bench/scale -o bin/bench-scale.json
	go run ./test/bench/kubelet -o bin/bench-kubelet.json

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
