#!/usr/bin/env bash
# Runs the tests of packages in virtual machines: vm.sh "KERNELS" "RUN" PACKAGE...
set -euo pipefail
cd "$(dirname "$0")/.."
kernels=$1 run=$2
shift 2

mkdir -p bin/vm
CGO_ENABLED=0 go build -o bin/vm/vm ./test/vm
debian=$(tr ' ' '\n' <<<"$kernels" | grep -v -- -ei || true)
[ -z "$debian" ] || bin/vm/vm fetch $debian
for package in "$@"; do
	CGO_ENABLED=0 go test -c -o "bin/vm/$package.test" "./$package"
done

available=$(bin/vm/vm list)
failed=()
for kernel in $kernels; do
	if ! grep -q "^$kernel"$'\t/' <<<"$available"; then
		echo "$kernel is not here: $(grep "^$kernel"$'\t' <<<"$available")"
		[ "$kernel" = 6.12-ei ] || failed+=("$kernel")
		continue
	fi
	for package in "$@"; do
		echo "=== $kernel $package"
		binary=$PWD/bin/vm/$package.test
		(cd "$package" && ../bin/vm/vm run -kernel "$kernel" -- "$binary" -test.v -test.run "${run:-.}" -test.timeout 10m) ||
			failed+=("$kernel/$package")
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "FAILED in virtual machines: ${failed[*]}"
	exit 1
fi
