package bpf

// The object that tests paths and globs.

//go:generate go tool bpf2go -cc clang-19 -target bpfel -output-suffix _test -no-global-types -type probe pathProbe path_probe.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
