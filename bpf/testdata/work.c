/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The target's program of the tests of uprobes: waits for a line, then does operations on a file, on two threads one after
 * the other if there are to be threads, and prints what they returned. work FILE [threads] OPERATION... */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t handled;

static void handle(int signal) { handled++; }

static long operate(int fd, const char *operation)
{
	char buffer[] = "0123456789";

	errno = 0;
	if (!strcmp(operation, "fsync")) return fsync(fd);
	if (!strcmp(operation, "fdatasync")) return fdatasync(fd);
	if (!strcmp(operation, "write")) return write(fd, buffer, 10);
	if (!strcmp(operation, "read")) return pread(fd, buffer, 10, 0);
	if (!strcmp(operation, "getppid")) return getppid();
	return -2;
}

/* What must go on as ever beside the fault: signals, children, threads. */
static int lives(void)
{
	int status = 0;
	pid_t child = fork();

	if (!child) _exit(7);
	if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7) return 0;
	signal(SIGUSR1, handle);
	raise(SIGUSR1);
	return handled == 1;
}

static char **operations;
static int file;

static void *run(void *unused)
{
	for (char **operation = operations; *operation; operation++) {
		long result = operate(file, *operation);
		if (result < 0) printf("%s=%s ", *operation, strerror(errno));
		else printf("%s=%ld ", *operation, result);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct stat st;
	pthread_t thread;
	char line[8];

	file = open(argv[1], O_RDWR | O_CREAT, 0600);
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin)) return 1;
	operations = argv + 2;
	if (*operations && !strcmp(*operations, "threads")) {
		operations++;
		pthread_create(&thread, 0, run, 0);
		pthread_join(thread, 0);
	} else {
		run(0);
	}
	fstat(file, &st);
	printf("size %ld lives %d\n", (long)st.st_size, lives());
	return 0;
}
