#!/bin/sh
# A zone is lost: the target, such as unit:checkout or cgroup:/kubepods/..., neither reaches nor hears anybody in it, for five
# minutes. The node's own infrastructure is spared, wherever it is.
exec faultd inject partition --target "${1:?give the target}" --duration 5m --peers-file "$(dirname "$0")/zone-a.cidrs"
