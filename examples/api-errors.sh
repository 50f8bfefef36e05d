#!/bin/sh
# An API fails now and then: one request in ten to it is answered 503 at once, and the others come half a second late, for five
# minutes. Give the target, such as unit:checkout or cgroup:/kubepods/..., and the host that it asks, such as payments.default.svc.
target=${1:?give the target} host=${2:?give the host of the API}
# The older fault is asked first, and an answer ends the search.
faultd inject http --target "$target" --duration 5m --host "$host" --status 503 --percent 10 --response-header 'Retry-After: 1' &&
	exec faultd inject http --target "$target" --duration 5m --host "$host" --delay 500ms
