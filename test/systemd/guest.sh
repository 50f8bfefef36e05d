#!/bin/bash
# Runs in the guest: faultd as a unit, on another unit, killed, stopped, latched and removed.
exec >/root/out 2>&1
fail() {
	echo "systemd: $*"
	journalctl -u faultd --no-pager | tail -30
	finish
}
finish() {
	sync
	systemctl poweroff
	exit
}
until_true() { # until_true COMMAND...: waits until it succeeds
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "did not come: $*"
}
# shellcheck disable=SC2317 # until_true calls these
injected() { faultd -o json get "$1" | grep -Eq '"injected": [1-9]'; }
# shellcheck disable=SC2317
restarted() { test "$(systemctl show -P MainPID faultd)" != "$before"; }
noted() { faultd -o json get "$1" | grep -q "$2"; }
# shellcheck disable=SC2317
cpu_max_is() { test "$(cat /sys/fs/cgroup/system.slice/victim.service/cpu.max)" = "$1"; }
# shellcheck disable=SC2317
found() { grep -q '^10\.1\.1\.1 ' /run/answered; }
# shellcheck disable=SC2317
missing() { test -e /run/answered && ! test -s /run/answered; }
counts() { until_true injected "$1"; }
injects() { # injects KIND FLAG...: asks again, by its key, where the machine is too slow to answer in time
	local key=$RANDOM$RANDOM
	for _ in $(seq 6); do
		if faultd inject "$@" --key "$key"; then return; fi
	done
	return 1
}

set -x
systemctl is-active faultd || fail "faultd is not active"
systemctl start victim || fail "the victim does not start"

refused=$(injects connect --target unit:victim --errno ECONNREFUSED --duration 5m) || fail "connect was refused"
slow=$(injects syscall --target unit:victim --call openat --delay 20ms --duration 5m) || fail "syscall was refused"
counts "$refused"
counts "$slow"
faultd who "$(systemctl show -P MainPID victim)" | grep -q "$slow" || fail "who does not know the fault"

# systemd sets a limit anew while a fault holds it: that is noticed, left so, made again or given up, and what systemd wants is what stays. That
# it reads its units again changes no limit.
until_true cpu_max_is '180000 100000' # CPUQuota= of the unit
for on_change in report reapply give-up; do
	squeezed=$(injects cpu --target unit:victim --limit 2% --on-change $on_change --duration 5m) || fail "cpu was refused"
	cpu_max_is '3600 100000' || fail "cpu.max is not squeezed"
	counts "$squeezed" # a limit that holds nobody back is inert, and stop says so
	systemctl daemon-reload
	cpu_max_is '3600 100000' || fail "a reload changes cpu.max"
	systemctl set-property --runtime victim.service CPUQuota=150%
	until_true noted "$squeezed" 'somebody else has changed cpu.max to 150000 100000'
	case $on_change in
	reapply) until_true cpu_max_is '3600 100000' ;;
	*) until_true cpu_max_is '150000 100000' ;;
	esac
	[ $on_change != give-up ] || noted "$squeezed" '"given up"' || fail "not given up"
	faultd stop "$squeezed" || fail "stop"
	cpu_max_is '150000 100000' || fail "$on_change: what systemd wants did not stay"
	systemctl set-property --runtime victim.service CPUQuota=180%
	until_true cpu_max_is '180000 100000'
done

# A service whose names systemd-resolved finds does not find them; others do.
grep -qx 'nameserver 127.0.0.53' /etc/resolv.conf || fail "systemd-resolved is not asked"
systemctl start asker
until_true found
nowhere=$(injects dns --target unit:asker --name asked.example.com --answer NXDOMAIN --duration 5m) || fail "dns was refused"
until_true missing
counts "$nowhere"
getent hosts asked.example.com | grep -q '^10\.1\.1\.1 ' || fail "others do not find the name"
faultd stop "$nowhere" || fail "stop"
until_true found
nowhere=$(injects dns --target unit:asker --name asked.example.com --answer NXDOMAIN --duration 5m) || fail "dns was refused"
until_true missing

# Killed: systemd starts it anew, without faults, and the guard has undone.
before=$(systemctl show -P MainPID faultd)
systemctl kill -s KILL faultd
until_true restarted
until_true faultd list
faultd list | grep -qx 'no faults' || fail "faults after a crash"
faultd check --residue || fail "residue after a crash"
until_true found

# A service that is stopped is started again: when the fault ends, and when the daemon is killed.
sed -i '/^node:/,/allow/ s/allow: false/allow: true/' /etc/faultd/faultd.yaml
systemctl restart faultd || fail "node faults cannot be allowed"
stopped=$(injects node --target cgroup:/ --action stop-unit --unit victim.service --duration 5m --i-mean-this-node) || fail "stop-unit was refused"
test "$(systemctl is-active victim)" = inactive || fail "the victim was not stopped"
faultd inject node --target cgroup:/ --action stop-unit --unit victim.service --duration 5m --i-mean-this-node && fail "stopped twice"
faultd inject node --target cgroup:/ --action stop-unit --unit faultd.service --duration 5m --i-mean-this-node && fail "faultd stops itself"
faultd stop "$stopped" || fail "stop"
until_true systemctl is-active victim
injects node --target cgroup:/ --action stop-unit --unit victim.service --duration 5m --i-mean-this-node || fail "stop-unit was refused"
test "$(systemctl is-active victim)" = inactive || fail "the victim was not stopped again"
before=$(systemctl show -P MainPID faultd)
systemctl kill -s KILL faultd
until_true systemctl is-active victim
until_true restarted
until_true faultd list
faultd check --residue || fail "residue after a crash with a stopped service"

# Stopped: ends its faults first.
lost=$(injects packet --target unit:victim --loss 50 --duration 5m) || fail "packet was refused"
counts "$lost"
systemctl stop faultd
faultd check --residue || fail "residue after a stop"

# Latched over a restart.
systemctl start faultd
faultd kill --reason test || fail "kill"
systemctl restart faultd
faultd inject connect --target unit:victim --errno EPERM --duration 1m && fail "a kill does not outlast a restart"
faultd arm --reason test || fail "arm"
systemctl stop faultd
faultd uninstall || fail "uninstall"
systemctl is-active victim || fail "the victim is gone"
{ set +x; } 2>/dev/null
echo 'systemd: all is well'
finish
