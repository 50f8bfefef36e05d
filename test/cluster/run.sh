#!/usr/bin/env bash
# Builds what a cluster of one node needs and runs the tests on it: Kubernetes' own programs, of the version in go.mod; the images, as the
# Dockerfile makes them; and a Debian with containerd and the kubelet, for a virtual machine. What is built stays in bin/cluster, so only
# the first run takes long (some 15 minutes). run.sh [TEST] [FLAG OF go test...]
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD kernel=6.12 suite=trixie out=$PWD/bin/cluster
packages=systemd,systemd-sysv,dbus,udev,kmod,procps,mount,util-linux,iproute2,iptables,nftables,busybox-static,containerd,runc,containernetworking-plugins
mkdir -p "$out"
say() { echo "cluster: $*"; }

# programs builds those of Kubernetes, as it is in go.mod; they tell their version by these variables. Their packages are built as those of
# test/k8s are, so that what was built there need not be built again.
programs() {
	local version flags="-s -w" package
	version=$(cd test/cluster && go list -m -f '{{.Version}}' k8s.io/kubernetes)
	say "build Kubernetes $version"
	for package in component-base/version client-go/pkg/version; do
		flags+=" -X k8s.io/$package.gitVersion=$version -X k8s.io/$package.gitMajor=1 -X k8s.io/$package.gitMinor=$(cut -d. -f2 <<<"$version")"
	done
	(cd test/cluster && go build -ldflags "$flags" -o "$out/" k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kubectl})
}

# system makes the root of the node's file system, but for what each run puts there.
system() {
	local image=$1 work
	if [ "$(cat "$out/system.made" 2>/dev/null || true)" = "$suite $packages" ]; then return; fi
	say "debootstrap $suite"
	rm -rf "$out/system" "$out/system.made"
	debootstrap --variant=minbase --include="$packages" "$suite" "$out/system" >"$out/debootstrap.log" 2>&1 || { tail -20 "$out/debootstrap.log"; exit 1; }
	mkdir -p "$out/system/lib/modules"
	cp -r "$(dirname "$image")"/lib/modules/* "$out/system/lib/modules/"
	chroot "$out/system" depmod "$(ls "$out/system/lib/modules")"
	echo "$suite $packages" >"$out/system.made"
}

# with_buildah COMMAND... runs buildah with everything it keeps below the scratch directory, and this machine's Go toolchain, its modules and
# its cache lent to builds, so that they need no network and little time.
with_buildah() {
	BUILDAH_ISOLATION=chroot TMPDIR=$scratch CONTAINERS_STORAGE_CONF=$scratch/storage.conf CONTAINERS_CONF=$scratch/containers.conf buildah "$@"
}

# images builds those of the Dockerfile, and one with busybox for whoever is hurt, and a program that resolves names as musl does.
images() {
	local base container name target
	printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/images"\nrunroot = "%s/run"\n' "$scratch" "$scratch" >"$scratch/storage.conf"
	printf '[containers]\nvolumes = ["%s:/usr/local/go:ro", "%s:/go/pkg/mod:ro", "%s:/cache"]\n' "$(go env GOROOT)" "$(go env GOMODCACHE)" "$(go env GOCACHE)" >"$scratch/containers.conf"
	base=$(sed -n 's/^FROM \(.*\) AS build$/\1/p' Dockerfile | head -1)
	mkdir -p "$scratch/tmp" "$out/images"
	container=$(with_buildah from scratch)
	with_buildah copy -q "$container" "$(command -v busybox)" /bin/sh >/dev/null
	with_buildah copy -q "$container" "$scratch/tmp" /tmp >/dev/null
	with_buildah config --env PATH=/usr/local/go/bin:/bin --env GOPATH=/go --env GOTOOLCHAIN=local --env GOPROXY=off --env GOCACHE=/cache "$container"
	with_buildah commit -q "$container" "$base" >/dev/null
	for target in faultd faultd-kube; do
		say "image of $target"
		# The image of faultd is the Dockerfile's last.
		with_buildah bud --pull-never -t "localhost/$target:test" $([ $target = faultd ] || echo --target $target) . >"$out/image.log" 2>&1 || { tail -20 "$out/image.log"; exit 1; }
	done

	mkdir -p "$scratch/busybox/bin"
	cp "$(command -v busybox)" "$scratch/busybox/bin/busybox"
	for name in $(busybox --list); do [ "$name" = busybox ] || ln -s busybox "$scratch/busybox/bin/$name"; done
	install test/cluster/node/client.sh "$scratch/busybox/bin/client"
	musl-gcc -Os -static -o "$scratch/busybox/bin/resolve" daemon/testdata/resolve.c
	container=$(with_buildah from scratch)
	with_buildah copy -q "$container" "$scratch/busybox" / >/dev/null
	with_buildah config --env PATH=/bin --cmd '["sleep", "infinity"]' "$container"
	with_buildah commit -q "$container" localhost/busybox:test >/dev/null
	with_buildah commit -q "$container" localhost/pause:test >/dev/null
	rm -f "$out"/images/*
	for name in faultd faultd-kube busybox pause; do
		with_buildah push -q "localhost/$name:test" "docker-archive:$out/images/$name.tar:localhost/$name:test"
	done
	with_buildah rm --all >/dev/null
}

# give_images has the node's own containerd take the images here, where that takes seconds: an emulated machine would need minutes.
give_images() {
	say "give the node its images"
	rm -rf "$out/system/var/lib/containerd" "$out/system/images"
	cp -r "$out/images" "$out/system/images"
	unshare --mount --pid --fork --kill-child --mount-proc="$out/system/proc" chroot "$out/system" /bin/bash -eu -c '
		containerd --log-level error --config /dev/null & # until this shell ends
		until ctr version >/dev/null 2>&1; do sleep 0.2; done
		for archive in /images/*.tar; do ctr -n k8s.io images import "$archive"; done
		kill -TERM %1; wait %1 || true' >"$out/import.log" 2>&1 || { tail -20 "$out/import.log"; exit 1; }
	rm -rf "$out/system/images"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
available=$(test/kernels.sh "$kernel")
image=$({ bin/vm/vm list || true; } | sed -n "s/^$available\t//p") # it fails if any kernel is missing, of whatever name
system "$image"
images
give_images
programs
say "test"
cd test/cluster
go vet ./...
FAULTD_CLUSTER="$out" FAULTD_CLUSTER_KERNEL="$image" go test -v -count=1 -timeout=60m ${1:+-run "$1"} "${@:2}" ./...
