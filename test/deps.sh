#!/usr/bin/env bash
# Installs what building, the tests, the demo and the benchmark need, on Debian 12 as root; with the argument "bench" also what that
# alone compares faultd to. What is there already is left alone.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
	echo "deps: not root, so nothing is installed; the effect tests need root" >&2
	exit 0
fi

missing=()
need() { # need COMMAND PACKAGE
	command -v "$1" >/dev/null || missing+=("$2")
}
need clang-19 clang-19
need llvm-strip-19 llvm-19
need redis-server redis-server
need redis-cli redis-tools
need strace strace # for comparison in the benchmark
if [ "${1:-}" = bench ]; then
	need fiu-run fiu-utils
	need dmsetup dmsetup
	need stress-ng stress-ng
fi
need ip iproute2
need dig bind9-dnsutils # resolvers that are hurt
need curl curl
[ -e /usr/bin/python3 ] || missing+=(python3) # also a target, which another one in PATH is not
need jq jq
need git git
need busybox busybox-static
need buildah buildah
need containerd containerd # pods and containers, as the next three
need runc runc
need podman podman
[ -e /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
need debootstrap debootstrap # a machine with systemd
need gcc gcc # for the race detector
need fio fio # targets, as the next four
need nginx nginx-light
need sqlite3 sqlite3
[ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || missing+=(postgresql)
[ -e /usr/lib/jvm/java-17-openjdk-amd64/bin/java ] || missing+=(openjdk-17-jre-headless) # has the compiler as a module
need iperf3 iperf3 # a sender whose packets are lost
need ping iputils-ping # clients that are hurt, as the next
need wrk wrk
need musl-gcc musl-tools # targets with another C library
need mke2fs e2fsprogs # disks for the virtual machines
need mkfs.xfs xfsprogs # file systems on disks that fail
need mkfs.btrfs btrfs-progs
need xz xz-utils      # their modules are packed
need unzstd zstd
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
[ -e /usr/include/bpf/bpf_helpers.h ] || missing+=(libbpf-dev)
[ -e /usr/include/linux/bpf.h ] || missing+=(linux-libc-dev)
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)

backports=()
qemu_version() { qemu-system-x86_64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p'; }
# QEMU 7.2 crashes guests with two CPUs when the kernel patches its own text.
[ "$(qemu_version || true)" -ge 10 ] 2>/dev/null || backports+=(qemu-system-x86)
# Any Go from 1.21 on fetches the version that go.mod asks for.
command -v go >/dev/null || backports+=(golang-go)

[ ${#missing[@]} -gt 0 ] || [ ${#backports[@]} -gt 0 ] || exit 0
export DEBIAN_FRONTEND=noninteractive
if [ ${#backports[@]} -gt 0 ] && ! grep -rqs 'bookworm-backports' /etc/apt/sources.list /etc/apt/sources.list.d; then
	echo 'deb http://deb.debian.org/debian bookworm-backports main' >/etc/apt/sources.list.d/faultd-backports.list
fi
apt-get update -q
# Servers of Redis and nginx must not start by themselves: the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
[ ${#missing[@]} -eq 0 ] || apt-get install -qy --no-install-recommends "${missing[@]}"
[ ${#backports[@]} -eq 0 ] || apt-get install -qy --no-install-recommends -t bookworm-backports "${backports[@]}"
