#!/usr/bin/env bash
# Shows faultd on a real Redis and a reconnecting client, each in a cgroup of its own, on loopback only: baseline, connections
# refused, packets lost, system calls slowed, kill switch, residue. Everything it starts it stops, by id.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "the demo needs root: it loads eBPF programs" >&2; exit 77; }

faultd=$PWD/bin/faultd
client=$PWD/bin/democlient
dir=$(mktemp -d)
tree=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
name=faultd-demo-$$
target=cgroup:/$name/client
own=(--state-dir "$dir/state" --pin-dir "/sys/fs/bpf/$name")
export FAULTD_SOCKET=$dir/s
port=16379
pids=()

# stop ends a process that we started and waits for it; one that does not listen is killed.
stop() {
	kill "$1" 2>/dev/null || return 0
	for _ in $(seq 100); do
		if ! kill -0 "$1" 2>/dev/null; then break; fi
		sleep 0.1
	done
	kill -9 "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}

cleanup() {
	local code=$? group i
	trap '' INT TERM
	# Newest first: the daemon, which was the first, frees whoever it still hurts when all the others are gone.
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do stop "${pids[i]}"; done
	for group in client server; do rmdir "$tree/$name/$group" 2>/dev/null || true; done
	rmdir "$tree/$name" 2>/dev/null || true
	if [ "$code" != 0 ] && [ -s "$dir/log" ]; then
		echo "the demo failed; the daemon's log:" >&2
		cat "$dir/log" >&2
	fi
	"$faultd" uninstall "${own[@]}" >"$dir/uninstall" 2>&1 || { cat "$dir/uninstall" >&2; code=1; }
	rm -rf "$dir"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
	echo "$*" >&2
	exit 1
}
in_group() { # in_group GROUP COMMAND...: becomes the command, in a cgroup; call it in a subshell
	echo "$BASHPID" >"$tree/$name/$1/cgroup.procs"
	shift
	exec "$@"
}
until_true() { # until_true WHAT COMMAND...: waits until the command succeeds, ten seconds at most
	local what=$1
	shift
	for _ in $(seq 100); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "$what did not come up"
}
inject() { "$faultd" inject "$@" --target "$target" --duration 1m; }
ask() { (in_group client "$client" --address "127.0.0.1:$port" --for 3s); }

step=0
title() { # title TEXT NOTICE
	step=$((step + 1))
	printf '\n%d. %s\n   %s\n' "$step" "$1" "$2"
}
# show compares a line of the client, file $2, with the baseline, and gives the counters of fault $3.
show() {
	jq -rn --slurpfile b "$dir/baseline" --slurpfile n "$2" --arg now "$1" '
		def ms: if . == 0 then "-" else "\(. * 100 | round / 100) ms" end;
		def ratio(a; b): if a == 0 or b == 0 then "-" else "x \(a / b * 100 | round / 100)" end;
		def row(name; o): [name, (o.perSecond | round), "\(o.errorPercent * 10 | round / 10) %", (o.p50Ms | ms), (o.p99Ms | ms)];
		["", "served/s", "errors", "p50", "p99"],
		row("baseline"; $b[0]),
		(if $now == "baseline" then empty else
			row($now; $n[0]),
			["ratio", ratio($n[0].perSecond; $b[0].perSecond), "", ratio($n[0].p50Ms; $b[0].p50Ms), ratio($n[0].p99Ms; $b[0].p99Ms)] end)
		| @tsv' | awk -F '\t' '{printf "   %-12s %10s %10s %12s %12s\n", $1, $2, $3, $4, $5}'
	if [ -n "${3:-}" ]; then counters "$3"; fi
}
counters() {
	"$faultd" -o json get "$1" | jq -r '"   faultd counted, by \(.mechanism): evaluated \(.evaluated), matched \(.matched), injected \(.injected), spared \(.spared), not applied \(.notApplied)"'
}
# hurt shows the client under fault $1, then stops the fault.
hurt() {
	ask >"$dir/saw"
	show now "$dir/saw" "$1"
	"$faultd" stop "$1" >/dev/null
}

mkdir -p "$tree/$name/client" "$tree/$name/server"
"$faultd" serve "${own[@]}" 2>"$dir/log" &
daemon=$!
pids+=("$daemon")
until_true "the daemon" "$faultd" list
(in_group server redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --daemonize no --dir "$dir" >"$dir/redis.log") &
pids+=($!)
redis=${pids[-1]}
# Another one may have the port.
our_redis() { redis-cli -p "$port" info server | grep -q "^process_id:${redis}[^0-9]"; }
until_true "our Redis on port $port" our_redis
# A fault on packets finds the network namespace through a process of the target.
(in_group client sleep 1000) &
pids+=($!)
until_true "a process in the target" grep -q . "$tree/$name/client/cgroup.procs"

echo "faultd on Linux $(uname -r): a Redis on 127.0.0.1:$port and a client that connects anew for each request."
echo "The client's cgroup /$name/client is the target; the Redis is beside it."

title "Baseline" "No fault: this is what the others are compared with."
ask >"$dir/baseline"
show baseline "$dir/baseline"

title "Connection refused: half of the client's connections fail with ECONNREFUSED" \
	"Half of the requests are errors; the others are as fast as before."
id=$(inject connect --errno ECONNREFUSED --percent 50 --port "$port")
hurt "$id"

title "Packet loss: 2 % of the packets that the client sends vanish" \
	"No errors: TCP sends them again, after 200 ms or more, and that is the p99."
id=$(inject packet --loss 2 --direction egress --port "$port")
hurt "$id"

# Any call where the kernel has the mechanism, else one with a security hook.
call="write"
for candidate in write connect; do
	if inject syscall --call "$candidate" --delay 5ms --percent 20 --dry-run >/dev/null 2>&1; then
		call=$candidate
		break
	fi
done
if id=$(inject syscall --call "$call" --delay 5ms --percent 20 2>"$dir/refusal"); then
	title "Slow system calls: one $call(2) in five takes 5 ms longer" \
		"The p99 grows by one or two delays; the client sleeps, no CPU is burnt."
	hurt "$id"
else
	title "Slow system calls: refused" "This kernel cannot, and faultd says so instead of doing nothing:"
	fold -sw 110 "$dir/refusal" | sed 's/^/   /'
fi

title "Kill switch: all connections are refused, and after two seconds somebody pulls the switch" \
	"The same client, before and after, without a break between: errors end at once."
id=$(inject connect --errno ECONNREFUSED --port "$port")
(in_group client "$client" --address "127.0.0.1:$port" --for 4s >"$dir/switched") &
asking=$!
pids+=("$asking")
sleep 2
outside=$(redis-cli -p "$port" ping)
pulled=${EPOCHREALTIME/[.,]/}
"$faultd" kill --reason "the demo" --pin-dir "/sys/fs/bpf/$name" >/dev/null
returned=${EPOCHREALTIME/[.,]/}
kill -USR1 "$asking"
wait "$asking" || fail "the client failed"
sed -n 1p "$dir/switched" >"$dir/before"
sed -n 2p "$dir/switched" >"$dir/after"
show "before" "$dir/before" "$id"
show "after" "$dir/after" | sed -n 3p
echo "   Outside the target, before the kill: $outside. State of the fault: $("$faultd" -o json get "$id" | jq -r '"\(.state), \(.reason)"')."
last=$(jq .lastErrorUs "$dir/before")
after=$(((last - pulled) / 1000))
relation=after
if [ "$after" -lt 0 ]; then relation=before after=$((-after)); fi # the client was not asking just then
echo "   faultd kill took $(((returned - pulled) / 1000)) ms, the whole command; the last refusal came $after ms $relation it was started."
[ "$outside" = PONG ] || fail "a client outside the target was hurt"
[ "$(jq .errors "$dir/before")" -gt 0 ] || fail "the client was not refused before the kill"
[ "$last" -le "$returned" ] || fail "a connection was refused after the kill"
[ "$(jq .errors "$dir/after")" = 0 ] || fail "the client saw errors after the kill"
"$faultd" arm --reason "the demo is over" --pin-dir "/sys/fs/bpf/$name" >/dev/null

title "Residue: the daemon stops; what is left of it?" "Nothing may be: else this demo fails."
stop "$daemon"
"$faultd" check --residue "${own[@]}" | sed 's/^/   /'
