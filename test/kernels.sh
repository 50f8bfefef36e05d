#!/usr/bin/env bash
# Fetches Debian's kernels among those named and prints all that can be booted: kernels.sh KERNEL...
# The one with error injection is built by hand and may be missing, which is said.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p bin/vm
# Others may be about to run it.
CGO_ENABLED=0 go build -o bin/vm/vm.new ./test/vm
mv bin/vm/vm.new bin/vm/vm
if [ -n "${IMAGE:-}" ]; then # it is booted whatever its name
	printf '%s\n' "$@"
	exit
fi
debian=()
for kernel in "$@"; do
	[[ $kernel == *-ei ]] || debian+=("$kernel")
done
[ ${#debian[@]} -eq 0 ] || bin/vm/vm fetch "${debian[@]}" >&2
available=$(bin/vm/vm list || true)
for kernel in "$@"; do
	line=$(grep "^$kernel"$'\t' <<<"$available" || echo "$kernel: no kernel of this name")
	if [[ $line == *$'\t'/* ]]; then
		echo "$kernel"
	elif [[ $kernel == *-ei ]]; then
		echo "NOT TESTED: $line" >&2
	else
		echo "$line" >&2
		exit 1
	fi
done
