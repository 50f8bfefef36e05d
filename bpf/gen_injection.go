package bpf

// The objects that fail what the kernel asks itself about, on kernels with error injection.
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types block block.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types memory memory.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
