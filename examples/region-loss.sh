#!/bin/sh
# A region is lost, as seen from one target: what goes there vanishes, connections that are open stand still. One address is left,
# such as that of the database from which the target replicates.
exec faultd inject partition --target "${1:?give the target}" --duration 10m --peers-file "$(dirname "$0")/region-west.cidrs" --except "${2:-10.65.3.7}"
