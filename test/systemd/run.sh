#!/usr/bin/env bash
# Boots a Debian 13 with systemd and its own kernel, with faultd installed as its unit says, and runs guest.sh in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
kernel=6.12 suite=trixie

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root disk=$work/disk

available=$(test/kernels.sh "$kernel")
image=$({ bin/vm/vm list || true; } | sed -n "s/^$available\t//p") # it fails if any kernel is missing, of whatever name
echo "systemd: debootstrap $suite"
debootstrap --variant=minbase --include=systemd,systemd-sysv,systemd-resolved,dbus,udev,kmod,procps "$suite" "$root" >"$work/log" 2>&1 ||
	{ tail -20 "$work/log"; exit 1; }

CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/faultd" ./cmd/faultd
install -D -m 644 deploy/faultd.yaml "$root/etc/faultd/faultd.yaml"
sed -i 's/^environment: .*/environment: test/; s/^production: .*/production: false/' "$root/etc/faultd/faultd.yaml" # as whoever installs it does
install -m 644 deploy/faultd.service test/systemd/{victim,asker,guest}.service "$root/etc/systemd/system/"
install -m 755 test/systemd/guest.sh "$root/usr/local/bin/"
for unit in faultd guest; do
	ln -s "/etc/systemd/system/$unit.service" "$root/etc/systemd/system/multi-user.target.wants/"
done
# Names are asked for by DNS alone, of systemd-resolved's stub, which knows them from the file.
sed -i 's/^hosts:.*/hosts: dns/' "$root/etc/nsswitch.conf"
echo '10.1.1.1 asked.example.com' >>"$root/etc/hosts"
mkdir -p "$root/lib/modules"
cp -r "$(dirname "$image")"/lib/modules/* "$root/lib/modules/"
chroot "$root" depmod "$(ls "$root/lib/modules")"
mke2fs -q -t ext4 -d "$root" "$disk" 1500M

echo "systemd: boot"
timeout 600 qemu-system-x86_64 -M q35 -cpu max -smp 2 -m 2G -display none -serial "file:$work/console" -monitor none -no-reboot \
	-kernel "$image" -append "console=ttyS0 root=/dev/nvme0n1 rw loglevel=3 panic=-1" \
	-drive "file=$disk,if=none,id=d,format=raw" -device nvme,drive=d,serial=x || true
debugfs -R 'cat /root/out' "$disk" 2>/dev/null | tee "$work/out"
if ! grep -qx 'systemd: all is well' "$work/out"; then
	tail -30 "$work/console"
	echo "FAILED under systemd"
	exit 1
fi
