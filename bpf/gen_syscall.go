package bpf

// The objects that delay system calls, one per mechanism.
//go:generate go run ./syscalls

//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallTask syscall_task.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallLsm syscall_lsm.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallClone syscall_clone.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types syscallSpin syscall_spin.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu

// The objects that decide what system calls return, one per mechanism.
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types resultFmod result_fmod.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types resultOverride result_override.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu

// The object that counts what arrives in targets and is out of reach.
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types arrival arrival.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu

// The object of security hooks.
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types security security.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
