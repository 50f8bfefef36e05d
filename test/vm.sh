#!/usr/bin/env bash
# Runs the tests of packages in virtual machines: vm.sh "KERNELS" "RUN" PACKAGE...
# FAULTD_TEST_DISABLE switches mechanisms off in them, so that others are reached.
set -euo pipefail
cd "$(dirname "$0")/.."
run=$2
read -ra kernels <<<"$1"
shift 2

mkdir -p bin/vm
CGO_ENABLED=0 go build -o bin/vm/vm ./test/vm
for package in "$@"; do
	CGO_ENABLED=0 go test -c -o "bin/vm/$package.test" "./$package"
done

available=$(test/kernels.sh "${kernels[@]}")
failed=()
for kernel in $available; do
	for package in "$@"; do
		echo "=== $kernel $package ${FAULTD_TEST_DISABLE:+without $FAULTD_TEST_DISABLE}"
		started=$SECONDS
		(cd "$package" && ../bin/vm/vm run -kernel "$kernel" -env "FAULTD_TEST_DISABLE=${FAULTD_TEST_DISABLE:-}" -- \
			"$OLDPWD/bin/vm/$package.test" -test.v -test.run "${run:-.}" -test.timeout=15m) || failed+=("$kernel/$package")
		echo "=== $kernel $package took $((SECONDS - started)) s"
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "FAILED in virtual machines: ${failed[*]}"
	exit 1
fi
