#!/usr/bin/env bash
# Runs tests in virtual machines: machines.sh STAGE..., of the stages below. An emulated machine keeps one processor busy, so
# there is one for each processor at a time; what a job prints comes as a whole, at its end. Its environment:
#   VM_KERNELS VM_PACKAGES       the kernels, and the packages that are tested on each, the one that takes longest first
#   VM_EDGES VM_EDGE_PACKAGES    the oldest and the newest kernel, and the packages of which these two tell enough; so do some tests of others
#   VM_BETWEEN                   kernels between these, on which the daemon's tests and the guard's tell enough
#   VM_PROGRAM_KERNELS           the kernels on which programs that people run are hurt
#   VM_SQUEEZE_KERNELS           the kernels on which such programs have limits
#   VM_LYING_KERNELS             the kernels on which the power is cut while syncs do nothing
#   VM_REBOOT_KERNELS            the kernels that are rebooted and crashed by faults of the node
#   VM_WITHOUT_LSM               the kernels on which delays work without LSM too
#   ARM64_TESTS                  the daemon's tests that run on arm64
#   KERNEL RUN                   only this kernel, only these tests; "" for all
#   IMAGE                        a kernel image with all drivers built in, booted as KERNEL; "" for the runner's own
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
if [ -n "${IMAGE:-}" ]; then
	[ -n "${KERNEL:-}" ] || { echo "IMAGE=$IMAGE needs a KERNEL as which to boot it, such as 6.12-ei" >&2; exit 1; }
	IMAGE=$(realpath "$IMAGE")
fi
read -ra packages <<<"$VM_PACKAGES"
read -ra edge_packages <<<"$VM_EDGE_PACKAGES"

lanes=$(nproc)
outputs=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$outputs"' EXIT
declare -A names=() began=() # of the running jobs, by process
failed=() shaky=() # names of jobs

# start NAME COMMAND... runs a job as soon as there is a lane for it.
start() {
	while [ ${#names[@]} -ge "$lanes" ]; do finish_one; done
	(if [ "$2" = in_machine ]; then in_machine_again "$1" "${@:3}"; else "${@:2}"; fi) >"$outputs/$1" 2>&1 &
	names[$!]=$1 began[$!]=$SECONDS
}

finish_one() {
	local process code=0
	wait -n -p process || code=$?
	local name=${names[$process]}
	echo "=== $name"
	cat "$outputs/$name"
	echo "=== $name took $((SECONDS - began[$process])) s$([ $code = 0 ] || echo ", FAILED")"
	[ $code = 0 ] || failed+=("$name")
	[ ! -e "$outputs/$name.shaky" ] || shaky+=("$name")
	unset "names[$process]" "began[$process]"
}

# reasons FILE prints the last words of each test that failed, of whatever crashed, and of the runner: for those who keep only the end.
reasons() {
	awk 'function tell(test, i) { for (i = said[test] > 8 ? said[test] - 8 : 0; i < said[test]; i++) print "  " substr(line[test, i], 1, 400); said[test] = 0 }
		/^=== (RUN|CONT|NAME)/ { test = $3; next }
		/--- FAIL:/ { tell($3); print "  " $0; next }
		{ line[test, said[test]++] = $0 }
		/^(panic|fatal error|vm):/ { tell(test) }' "$1"
}

build() { # build PACKAGE...
	for package in "$@"; do
		[ -e "$outputs/${package//\//-}.built" ] && continue
		CGO_ENABLED=0 go test -ldflags '-s -w' -c -o "bin/vm/$package.test" "./$package"
		touch "$outputs/${package//\//-}.built"
	done
}

# build_programs makes the targets' programs with each C library, dynamic and static.
build_programs() {
	local out=bin/vm/programs source=bpf/testdata/work.c
	mkdir -p "$out"
	gcc -O1 -pthread -o "$out/calls-glibc" test/programs/testdata/calls.c
	gcc -O1 -pthread -static -o "$out/calls-static" test/programs/testdata/calls.c
	musl-gcc -O1 -pthread -static -o "$out/calls-musl" test/programs/testdata/calls.c
	gcc -O1 -pthread -o "$out/work-glibc" "$source"
	gcc -O1 -pthread -static -o "$out/work-static" "$source"
	musl-gcc -O1 -pthread -o "$out/work-musl-dynamic" "$source"
	musl-gcc -O1 -pthread -static -o "$out/work-musl" "$source"
}

# in_machine KERNEL FLAG... -- PACKAGE... runs the tests of packages in one machine, in the directory of the first.
in_machine() {
	local kernel=$1 flags=() binaries
	shift
	[ -z "${IMAGE:-}" ] || flags+=(-image "$IMAGE")
	while [ "$1" != -- ]; do flags+=("$1"); shift; done
	shift
	cd "$1"
	for tool in mkfs.ext4 e2fsck mkfs.xfs xfs_repair mkfs.btrfs btrfs; do flags+=(-file "$(command -v "$tool")"); done # of tests that make disks fail
	flags+=(-file /etc/mke2fs.conf)
	flags+=(-file "$(command -v iperf3)") # a load under which faults end
	# Of tests that hurt programs where they make their calls.
	flags+=(-dir "$root/bin/vm/programs" -file "$root/bin/vm/programs/work-glibc" -file /lib/ld-musl-x86_64.so.1 -file /lib/x86_64-linux-musl/libc.so)
	flags+=(-env "FAULTD_TEST_PROGRAMS=$root/bin/vm/programs")
	[ -n "${KERNEL:-}" ] || flags+=(-env "FAULTD_TEST_EDGES=$VM_EDGES")
	binaries=$(printf ",$root/bin/vm/%s.test" "$@")
	exec "$root/bin/vm/vm" run -v -kernel "$kernel" "${flags[@]}" -binaries "${binaries#,}" -- -test.v -test.run "${run:-.}" -test.timeout=40m
}

# in_machine_again NAME KERNEL FLAG... -- PACKAGE... is in_machine; up to three tests that fail are run once more, in a new machine, because
# an emulated one stands still when its host is busy. What then passes is told at the end, with the reasons of the first time. A kernel that
# complained, a crash and a time-out stay what they are.
in_machine_again() {
	local name=$1 code=0 tests
	shift
	(in_machine "$@") | tee "$outputs/$name.first" || code=$?
	tests=$(sed -n 's/^--- FAIL: \([^ ]*\) .*/\1/p' "$outputs/$name.first" | sort -u)
	if [ $code != 1 ] || [ -z "$tests" ] || [ "$(wc -l <<<"$tests")" -gt 3 ]; then return $code; fi
	echo "=== again: ${tests//$'\n'/ }"
	rm -f "$outputs/${name// /-}.disk"
	run="^(${tests//$'\n'/|})\$"
	(in_machine "$@") || return $?
	mv "$outputs/$name.first" "$outputs/$name.shaky"
}

# stage_vm tests packages on kernels. The longest begin first, so that the lanes end together: those of a machine to themselves.
stage_vm() {
	local run=${RUN:-} kernel rest
	build "${packages[@]}" "${edge_packages[@]}"
	for kernel in "${kernels[@]}"; do
		start "$kernel ${packages[0]}" in_machine "$kernel" -- "${packages[0]}"
	done
	for kernel in "${kernels[@]}"; do
		rest=("${packages[@]:1}")
		[[ -z ${KERNEL:-} && " $VM_EDGES " != *" $kernel "* ]] || rest=("${edge_packages[@]}" "${rest[@]}")
		[[ -n ${KERNEL:-} || " $VM_BETWEEN " != *" $kernel "* ]] || rest=(guard)
		start "$kernel ${rest[*]}" in_machine "$kernel" -- "${rest[@]}"
	done
}

# stage_arm64 tests the daemon's main ways on an emulated machine of arm64.
stage_arm64() {
	local run=${RUN:-$ARM64_TESTS}
	mkdir -p bin/vm/arm64
	GOARCH=arm64 CGO_ENABLED=0 go test -ldflags '-s -w' -c -o bin/vm/arm64/daemon.test ./daemon
	start "${kernels[0]} daemon" in_arm64 "${kernels[0]}"
}

in_arm64() {
	cd daemon
	exec "$root/bin/vm/vm" run -v -kernel "$1" -- "$root/bin/vm/arm64/daemon.test" -test.v -test.run "$run" -test.timeout=40m
}

# stage_mechanisms puts threads to sleep by the mechanisms that are not a kernel's first choice.
stage_mechanisms() {
	local run="" kernel
	build guard
	for kernel in "${kernels[@]}"; do
		[[ " $VM_WITHOUT_LSM " == *" $kernel "* ]] || continue
		start "$kernel guard without LSM" in_machine "$kernel" -env FAULTD_TEST_DISABLE=lsm -- guard
	done
}

# stage_powercut cuts the power while faults run, and boots again.
stage_powercut() {
	local kernel test
	build daemon
	build_daemon
	build test/programs
	for kernel in "${kernels[@]}"; do
		[[ -n ${KERNEL:-} || " $VM_REBOOT_KERNELS " == *" $kernel "* ]] || continue
		start "$kernel TestNodeGoesDown" reboot "$kernel" TestNodeGoesDown 3 -- daemon # by a reboot, by a panic and by switching off
		start "$kernel TestExampleReboots" reboot "$kernel" TestExampleReboots 1 "${programs[@]}" -- test/programs
	done
	for kernel in "${kernels[@]}"; do
		for test in TestPowerCutWhileHurting TestPowerCutAfterKill; do
			[[ -n ${KERNEL:-} || " $VM_EDGES " == *" $kernel "* ]] || continue # the journal and the disk are the same
			start "$kernel $test" cut_power "$kernel" "$test" -- daemon
		done
		[[ " $VM_LYING_KERNELS " == *" $kernel "* ]] || continue
		start "$kernel TestPowerCutUnderLies" cut_power "$kernel" TestPowerCutUnderLies "${programs[@]}" -env TMPDIR=/persist -- test/programs
	done
}

# cut_power KERNEL TEST FLAG... -- PACKAGE runs a test twice. The runner fails if the line does not come: neither boot can pass by doing
# nothing.
cut_power() {
	local kernel=$1 test=$2 run="^$2\$"
	shift 2
	in_machine "$kernel" -persist "$outputs/$kernel-$test.disk" -env FAULTD_TEST_POWER_CUT=1 -reset-after 'faultd test: cut the power' "$@"
}

# reboot KERNEL TEST TIMES FLAG... -- PACKAGE runs a test that makes its machine boot again so many times.
reboot() {
	local kernel=$1 test=$2 times=$3 run="^$2\$"
	shift 3
	in_machine "$kernel" -persist "$outputs/$kernel-$test.disk" -env FAULTD_TEST_REBOOTS=1 -reboots "$times" "$@"
}

# build_daemon makes the daemon as it is installed, and finds the programs that it hurts, and the examples of doing so.
build_daemon() {
	local program
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/faultd ./cmd/faultd
	mkdir -p bin/vm/test
	programs=(-dir "$root/examples")
	for program in "$root/bin/faultd" fio nginx redis-server sqlite3 iperf3 ip tc ss busybox sleep; do programs+=(-file "$(command -v "$program")"); done
}

# build_postgres makes the data of a new PostgreSQL, which takes minutes on an emulated machine, and finds what runs it. PostgreSQL refuses to be root.
build_postgres() {
	local data=bin/vm/postgres bin new
	bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | tail -1)")
	if [ ! -e "$data/PG_VERSION" ]; then
		new=$(mktemp -d)
		chown nobody "$new"
		(cd / && TZ=GMT setpriv --reuid nobody --clear-groups "$bin/initdb" -D "$new/data" -A trust -U postgres -N --locale C -E SQL_ASCII --wal-segsize 1)
		rm -rf "$data"
		mv "$new/data" "$data"
		rmdir "$new"
	fi
	postgres=(-file "$bin/postgres" -file "$bin/psql" -file "$(realpath "$bin/../lib/plpgsql.so")" -dir "$(ls -d /usr/share/postgresql/*/timezonesets | tail -1)" -dir "$root/$data" -env "FAULTD_TEST_POSTGRES=$root/$data")
}

# build_interpreters finds Python and Java with what they need, and makes the program that Java runs.
build_interpreters() {
	local java=/usr/lib/jvm/java-17-openjdk-amd64 classes=$root/bin/vm/java library
	"$java/bin/java" -m jdk.compiler/com.sun.tools.javac.Main -d "$classes" test/programs/testdata/Does.java
	interpreters=(-file /usr/bin/python3 -dir "$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')")
	interpreters+=(-dir "$java/bin" -dir "$java/lib" -dir "$java/conf" -dir /etc/java-17-openjdk -dir "$classes" -env "FAULTD_TEST_JAVA=$java/bin/java" -env "FAULTD_TEST_CLASSES=$classes")
	for library in $(ldd "$java"/bin/java "$java"/lib/server/libjvm.so "$java"/lib/lib{java,net,nio}.so | awk '$3 ~ "^/" && $3 !~ "/jvm/" {print $3}' | sort -u); do interpreters+=(-file "$library"); done
}

# stage_programs hurts programs that people run, by the daemon as it is installed. Their files are on a disk.
stage_programs() {
	local kernel run=${RUN:-}
	build_daemon
	build_interpreters
	build_postgres
	build test/programs
	for kernel in "${kernels[@]}"; do
		[[ -n ${KERNEL:-} || " $VM_PROGRAM_KERNELS " == *" $kernel "* ]] || continue
		start "$kernel programs" in_machine "$kernel" -persist "$outputs/$kernel-programs.disk" -env TMPDIR=/persist -mem 2G "${programs[@]}" "${interpreters[@]}" -- test/programs
	done
	[[ -z $run || $run == *Squeezed* ]] || return 0
	run='^TestSqueezed$'
	for kernel in "${kernels[@]}"; do
		[[ -n ${KERNEL:-} || " $VM_SQUEEZE_KERNELS " == *" $kernel "* ]] || continue
		start "$kernel squeezed programs" in_machine "$kernel" -persist "$outputs/$kernel-squeezed.disk" -env TMPDIR=/persist "${programs[@]}" "${postgres[@]}" -- test/programs
	done
}

stage_systemd() {
	start "systemd" test/systemd/run.sh
}

# stage_runner tests the runner itself, on this machine.
stage_runner() {
	start "runner" env FAULTD_REQUIRE_VM=1 go test -race -count=1 -timeout=30m ./test/vm/...
}

mkdir -p bin/vm
[ "$*" = arm64 ] || build_programs
read -ra wanted <<<"${KERNEL:-$VM_KERNELS}"
available=$(test/kernels.sh "${wanted[@]}")
read -ra kernels <<<"${available//$'\n'/ }"
for stage in "$@"; do "stage_$stage"; done
while [ ${#names[@]} -gt 0 ]; do finish_one; done
for name in "${shaky[@]}"; do
	echo "failed once and passed when run again: $name"
	reasons "$outputs/$name.shaky"
done
if [ ${#failed[@]} -gt 0 ]; then
	for name in "${failed[@]}"; do
		echo "FAILED in virtual machines: $name"
		reasons "$outputs/$name"
	done
	exit 1
fi
