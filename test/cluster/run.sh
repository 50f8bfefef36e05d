#!/usr/bin/env bash
# Builds Kubernetes' own programs, of the version in go.mod, and runs the tests on them. What is built stays in bin/cluster, so only the first
# run takes long (some ten minutes). run.sh [TEST] [FLAG OF go test...]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/bin/cluster
mkdir -p "$out"
cd test/cluster
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
echo "cluster: build Kubernetes $version"
flags="-s -w" # the programs tell their version by these variables
for package in component-base/version client-go/pkg/version; do
	flags+=" -X k8s.io/$package.gitVersion=$version -X k8s.io/$package.gitMajor=1 -X k8s.io/$package.gitMinor=$(cut -d. -f2 <<<"$version")"
done
# Built as the packages of test/k8s are, so that what they share is built once.
go build -ldflags "$flags" -o "$out/" k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubectl}
go vet ./...
FAULTD_CLUSTER="$out" go test -v -count=1 -timeout=30m ${1:+-run "$1"} "${@:2}" ./...
