#!/usr/bin/env bash
# Shows faultd on a real Redis and a reconnecting client, each in a cgroup of its own, on loopback only: baseline, connections
# refused, packets lost, system calls slowed, kill switch, residue. Everything it starts it stops, by id.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "the demo needs root: it loads eBPF programs" >&2; exit 77; }

faultd=$PWD/bin/faultd
dir=$(mktemp -d)
tree=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
name=faultd-demo-$$
pins=/sys/fs/bpf/$name
export FAULTD_SOCKET=$dir/s
port=16379
pids=()

cleanup() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
	pids=()
	for group in client server; do rmdir "$tree/$name/$group" 2>/dev/null || true; done
	rmdir "$tree/$name" 2>/dev/null || true
	rm -rf "$pins" "$dir"
}
trap cleanup EXIT

in_group() { # in_group GROUP COMMAND...: becomes the command, in a cgroup; call it in a subshell
	local group=$1
	shift
	echo "$BASHPID" >"$tree/$name/$group/cgroup.procs"
	exec "$@"
}
field() { "$faultd" -o json get "$1" | jq -r ".$2"; }

mkdir -p "$tree/$name/client" "$tree/$name/server"
"$faultd" serve --state-dir "$dir/state" --pin-dir "$pins" 2>"$dir/log" &
daemon=$!
pids+=("$daemon")
for _ in $(seq 100); do "$faultd" list >/dev/null 2>&1 && break; sleep 0.1; done
"$faultd" list >/dev/null || { cat "$dir/log"; exit 1; }

in_group server redis-server --bind 127.0.0.1 --port $port --save '' --appendonly no --daemonize no --dir "$dir" >"$dir/redis.log" &
pids+=($!)
for _ in $(seq 100); do redis-cli -p $port ping 2>/dev/null | grep -q PONG && break; sleep 0.1; done

echo "faultd demo: Redis on 127.0.0.1:$port; its client lives in cgroup /$name/client and is the target"
echo
step() { # step NAME [FAULT-ID]
	local counters=""
	(in_group client "$PWD/bin/democlient" --address 127.0.0.1:$port --for 3s) >"$dir/saw"
	[ -z "${2:-}" ] || counters="$("$faultd" -o json get "$2" | jq -r '"\(.mechanism): evaluated \(.evaluated), matched \(.matched), injected \(.injected), not applied \(.notApplied)"')"
	printf '%-20s %s\n' "$1" "$(cat "$dir/saw")"
	[ -z "$counters" ] || printf '%-20s %s\n' "" "$counters"
}
step "baseline"

id=$("$faultd" inject connect --target "cgroup:/$name/client" --errno ECONNREFUSED --percent 50 --port $port --duration 1m)
step "refused, 50 %" "$id"
"$faultd" stop "$id" >/dev/null

# The network namespace is found through a process of the target.
in_group client sleep 1000 &
pids+=($!)
until grep -q . "$tree/$name/client/cgroup.procs"; do sleep 0.01; done
id=$("$faultd" inject packet --target "cgroup:/$name/client" --loss 2 --direction egress --port $port --duration 1m)
step "packet loss, 2 %" "$id"
"$faultd" stop "$id" >/dev/null

if id=$("$faultd" inject syscall --target "cgroup:/$name/client" --call write --delay 5ms --percent 20 --duration 1m 2>"$dir/refusal"); then
	step "slow write, 20 %" "$id"
	"$faultd" stop "$id" >/dev/null
else
	printf '%-20s refused, as it must be: %s\n' "slow write" "$(cat "$dir/refusal")"
fi

id=$("$faultd" inject connect --target "cgroup:/$name/client" --errno ECONNREFUSED --port $port --duration 1m)
step "refused, all" "$id"
"$faultd" kill --reason "end of the demo" --pin-dir "$pins" >/dev/null
step "after kill" "$id"
[ "$(field "$id" state)" = ended ] || { echo "the fault is $(field "$id" state) after the kill"; exit 1; }
"$faultd" arm --reason "end of the demo" --pin-dir "$pins" >/dev/null

echo
kill "$daemon"
wait "$daemon" || { cat "$dir/log"; exit 1; }
echo -n "residue: "
"$faultd" check --residue --pin-dir "$pins" --state-dir "$dir/state"
