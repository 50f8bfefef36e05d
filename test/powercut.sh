#!/usr/bin/env bash
# Cuts the power of virtual machines while faults run, and boots them again: powercut.sh KERNEL...
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p bin/vm
CGO_ENABLED=0 go test -c -o bin/vm/daemon.test ./daemon
disks=$(mktemp -d)
trap 'rm -rf "$disks"' EXIT

available=$(test/kernels.sh "$@")
failed=()
for kernel in $available; do
	for test in TestPowerCutWhileHurting TestPowerCutAfterKill; do
		echo "=== $kernel $test"
		# The runner fails if the line does not come: neither boot can pass by doing nothing.
		(cd daemon && ../bin/vm/vm run -kernel "$kernel" -persist "$disks/$kernel-$test" -reset-after 'faultd test: cut the power' -- \
			"$OLDPWD/bin/vm/daemon.test" -test.v -test.run "^$test\$" -test.timeout=5m) || failed+=("$kernel/$test")
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "FAILED after a power cut: ${failed[*]}"
	exit 1
fi
