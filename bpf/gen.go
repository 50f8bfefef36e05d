package bpf

// The committed objects are built by `make generate` with clang 19; CI rebuilds and compares them.

//go:generate go tool bpf2go -cc clang-19 -target bpfel -type rule -type stat -type target_key -type levels -type rule_set -type rule_ref -type peer_key -type peer_verdict -type traffic -type port_range -type sleeper -type sleep_config -type call_shape -type quantiles -type loss -type chain -type chain_state -type filter -type predicate -type weighted_error -type stand_in_key -type stand_in -type server_key -type server -type stand_in_port -type diverted shared shared.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types connect connect.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types packet packet.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types redirect redirect.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types reset reset.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types divert divert.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types pool pool.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types patience patience.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
