# faultd: `make demo` shows what it does, `make test` proves it. Both install what they need (Debian, as root).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

export GOFLAGS ?= -buildvcs=false
export FAULTD_REQUIRE_ROOT ?= 1
GOBIN := $(CURDIR)/bin
BUF := v1.75.0
PROTOC_GEN_GO := v1.36.12
PROTOC_GEN_CONNECT := v1.21.1
PROTOC_GEN_JSONSCHEMA := v0.6.0
GOLANGCI := v2.15.0
TOXIPROXY := v2.12.0
GOTESTSUM := v1.13.0
# No waiting for races that might yet be reported when a program ends: the tests start hundreds, each would take a second.
export GORACE ?= atexit_sleep_ms=0
# The packages whose tests run in virtual machines too (test/machines.sh), the longest first.
export VM_KERNELS := 7.3 6.12-ei 6.12 6.1
export VM_PACKAGES := daemon bpf guard faults
# Hardly anything in these differs from kernel to kernel: they run on the oldest and the newest.
export VM_EDGE_PACKAGES := cgroup undo
export VM_EDGES := 6.1 7.3
# Kernels between these, which have no mechanism of their own: there the daemon's tests and the guard's tell enough.
export VM_BETWEEN := 6.12
# Programs that people run, where most mechanisms are. KERNEL=6.1, 6.12 and 7.3 work too.
export VM_PROGRAM_KERNELS := 6.12-ei
# Programs that people run, with limits of their cgroups: the same on every kernel that has the controllers.
export VM_SQUEEZE_KERNELS := 6.12
# Of the kernels that can drop a sync one is enough to show that a power cut then loses data.
export VM_LYING_KERNELS := 6.12-ei
# Kernels that are rebooted and crashed by faults of the whole node.
export VM_REBOOT_KERNELS := 6.12
# Kernels on which delays work without LSM too, by task work and by clones.
export VM_WITHOUT_LSM := 7.3 6.12-ei
# What runs on arm64, when that is asked for.
export ARM64_TESTS := ^(TestTheWholeWay|TestConnectErrnos|TestLossIsSilent|TestKillWakesSleepers|TestKillLatches)$$
export KERNEL RUN IMAGE
# Where generated files are.
GENERATED := api bpf deploy/kubernetes/crd deploy/helm/crds

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what building and testing need
	@test/deps.sh

build: ## build bin/faultd, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/faultd ./cmd/faultd

demo: deps build ## show the faults on a real Redis, then take everything away
	CGO_ENABLED=0 go build -o bin/democlient ./test/democlient
	@test/demo.sh

generate: deps ## rebuild the BPF objects, with clang-19, and what is made of the API's schema
	GOBIN=$(GOBIN) go install github.com/bufbuild/buf/cmd/buf@$(BUF)
	GOBIN=$(GOBIN) go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO)
	GOBIN=$(GOBIN) go install connectrpc.com/connect/cmd/protoc-gen-connect-go@$(PROTOC_GEN_CONNECT)
	GOBIN=$(GOBIN) go install github.com/bufbuild/protoschema-plugins/cmd/protoc-gen-jsonschema@$(PROTOC_GEN_JSONSCHEMA)
	PATH=$(GOBIN):$$PATH go generate ./api ./bpf

check-generated: ## fail if the committed generated files are not what the sources give
	@before=$$(find $(GENERATED) -type f | sort | xargs sha256sum); $(MAKE) generate; \
	after=$$(find $(GENERATED) -type f | sort | xargs sha256sum); \
	diff <(echo "$$before") <(echo "$$after") || { echo "generated files differ from their sources: run make generate and commit"; exit 1; }

# Without test/k8s and test/cluster, modules of their own, of which the linters would first build all of Kubernetes: make test-k8s vets them.
lint: ## gofmt, go vet, golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt"; exit 1; }
	go vet ./...
	GOBIN=$(GOBIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	$(GOBIN)/golangci-lint run ./...

test: deps check-generated test-unit ## everything: this kernel, then the virtual machines, one for each processor
	@test/machines.sh vm programs mechanisms runner systemd powercut

# Short: without the virtual machines of the runner's own tests. Up to three tests that fail are run once more, as in machines, and are told
# with the reasons of the first time; a race, a crash and a time-out stay what they are.
test-unit: build ## unit and effect tests on this kernel, with the race detector; arm64 must build
	GOARCH=arm64 CGO_ENABLED=0 go build -o /dev/null ./...
	go build -race ./... # by all processors; the tests run one package at a time
	GOBIN=$(GOBIN) go install gotest.tools/gotestsum@$(GOTESTSUM)
	$(GOBIN)/gotestsum --rerun-fails=1 --rerun-fails-max-failures=3 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race \
		--rerun-fails-report=$(GOBIN)/reruns.txt --packages=./... -- -race -count=1 -p 1 -short -timeout=30m
	$(BENCH_PROGRAMS) -benchtime=1x # no figures: that they run
	@! grep . $(GOBIN)/reruns.txt || echo "these failed once and passed when run again"

test-vm: ## effect tests in virtual machines: make test-vm KERNEL=6.12 RUN=TestX; a kernel of yours: IMAGE=bzImage KERNEL=6.12-ei; the main ones on arm64: ARCH=arm64
	@$(if $(filter arm64,$(ARCH)),KERNEL=6.12-arm64 test/machines.sh arm64,test/machines.sh vm)

test-mechanisms: ## sleeping by the mechanisms that are not a kernel's first choice
	@test/machines.sh mechanisms

test-programs: ## faults on SQLite, Redis, nginx, fio and others in virtual machines: make test-programs KERNEL=7.3 RUN=TestPrograms/Redis
	@test/machines.sh programs

test-powercut: ## faults, a power cut, and what the next boot finds
	@test/machines.sh powercut

test-systemd: ## faultd as a unit, under a real systemd in a virtual machine
	@test/machines.sh systemd

test-k8s: ## the definitions and policies for Kubernetes, on its API server of custom resources with an etcd, in one process; the agent's image; the same on a whole Kubernetes
	cd test/k8s && go vet ./... && go test -count=1 -timeout=10m $(if $(RUN),-run $(RUN)) ./...
	$(if $(RUN),,go test -count=1 -timeout=10m -run TestImageKube ./test/image)
	test/cluster/run.sh $(RUN)

# Needs no root. The log of the API server's clients is not for people.
bench-k8s: ## measure what experiments of a cluster cost its API server, and how fast they and the safety lever are, with up to 1000 simulated nodes
	CGO_ENABLED=0 go build -o bin/fleet ./test/fleet
	cd test/k8s && FAULTD_FLEET=$(CURDIR)/bin/fleet go test -count=1 -v -timeout=60m -run TestSpeed . | grep -v '^{"level"'

test-runner: ## the runner of the virtual machines itself
	@test/machines.sh runner

FORCE:

# What a path, globs and a packet cost.
BENCH_PROGRAMS = go test ./bpf -run '^$$' -bench 'Glob(Nothing|Path|Match|Both)|Packet'

bench: deps build bin/bench bin/bench-caller ## measure speed beside bare runs: a table, and the raw numbers in bin/bench.json
	GOBIN=$(GOBIN)/toxiproxy CGO_ENABLED=0 go install github.com/Shopify/toxiproxy/v2/cmd/server@$(TOXIPROXY)
	@test/deps.sh bench
	@bin/bench
	@$(BENCH_PROGRAMS)

SECTIONS ?= errors,globs,rivals
# How many instructions things take, on kernels that have the mechanisms: an emulated machine's time follows them.
bench-vm: deps build bin/bench bin/bench-caller ## the same for errors, beside libfiu, strace and the device mapper: make bench-vm KERNEL=6.12-ei SECTIONS=errors
	@test/deps.sh bench
	@test/kernels.sh $(or $(KERNEL),7.3)
	@bin/vm/vm run -icount -timeout 60m -mem 2G -persist bin/vm/bench.disk -kernel $(or $(KERNEL),7.3) -module null_blk -module dm_flakey -module dm_delay -module veth \
		$$(printf -- '-file %s ' $(CURDIR)/bin/faultd $(CURDIR)/bin/bench-caller $$(command -v strace dmsetup bash fiu-run redis-server redis-benchmark iperf3 nsenter) /usr/lib/libfiu.so.0) -dir /usr/lib/fiu \
		-- $(CURDIR)/bin/bench -rounds 2 -sections $(SECTIONS)

bin/bench: FORCE
	CGO_ENABLED=0 go build -o bin/bench ./test/bench

bin/bench-caller: test/bench/testdata/caller.c
	gcc -O1 -Wall -Wextra -o $@ $<

image: ## build the container image with buildah
	buildah bud -t faultd:dev .

image-kube: ## build the image of the agent for Kubernetes with buildah
	buildah bud -t faultd-kube:dev --target faultd-kube .

clean: ## remove what was built
	rm -rf bin

.PHONY: help deps build demo generate check-generated lint test test-unit test-vm test-mechanisms test-programs test-powercut test-systemd test-k8s bench-k8s test-runner bench bench-vm FORCE image image-kube clean
