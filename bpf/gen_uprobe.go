package bpf

// The object that decides about calls where the target makes them.
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallUprobe syscall_uprobe.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
