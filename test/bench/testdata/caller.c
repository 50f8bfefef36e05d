/* A worker whose calls go through the C library, for tools that stand in there. It is ordered and answers as the other one (worker.go),
 * and knows one order: what does a call cost? */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 10
#define BATCH_NS 5000000
#define BATCH_STEP 64

static int zero;

static int open_and_close(void)
{
	int fd = open("/dev/null", O_RDONLY);

	return fd < 0 || close(fd);
}

static int read_one(void)
{
	char byte;

	return pread(zero, &byte, 1, 0) != 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* The cost of one call in ns, in the batch that was disturbed least; negative: a call failed. */
static double cost(int (*call)(void))
{
	double best = 0;

	for (int i = 0; i < BATCHES; i++) {
		double began = now(), took = 0;
		int calls = 0;

		while (took < BATCH_NS) {
			for (int j = 0; j < BATCH_STEP; j++)
				if (call())
					return -1;
			calls += BATCH_STEP;
			took = now() - began;
		}
		if (!best || took / calls < best)
			best = took / calls;
	}
	return best;
}

int main(void)
{
	char order[512];

	zero = open("/dev/zero", O_RDONLY);
	if (zero < 0)
		return 1;
	while (fgets(order, sizeof(order), stdin)) {
		double ns = cost(strstr(order, "\"Call\":\"pread\"") ? read_one : open_and_close);

		printf(ns < 0 ? "{\"Error\":\"a call failed that nobody should hurt\"}\n" : "{\"Cost\":%f}\n", ns);
		fflush(stdout);
	}
	return 0;
}
