package bpf

// The objects that delay system calls, one per mechanism.
//go:generate go run ./syscalls

//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallTask syscall_task.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallLsm syscall_lsm.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallClone syscall_clone.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallSpin syscall_spin.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
