/* calls FILE THREADS TIMES: so many threads sync a file so many times each, and it prints how often which result came. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int file, times;
static long ok, eio, other;

static void *work(void *unused)
{
	(void)unused;
	for (int i = 0; i < times; i++) {
		if (fsync(file) == 0)
			__sync_fetch_and_add(&ok, 1);
		else if (errno == EIO)
			__sync_fetch_and_add(&eio, 1);
		else
			__sync_fetch_and_add(&other, 1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 4 || (file = open(argv[1], O_WRONLY | O_CREAT, 0600)) < 0) {
		perror("calls");
		return 1;
	}
	int threads = atoi(argv[2]);
	times = atoi(argv[3]);
	pthread_t *all = calloc(threads, sizeof(*all));
	for (int i = 0; i < threads; i++) {
		if ((errno = pthread_create(&all[i], NULL, work, NULL)) != 0) {
			perror("calls");
			return 1;
		}
	}
	for (int i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	printf("ok=%ld EIO=%ld other=%ld\n", ok, eio, other);
	return 0;
}
