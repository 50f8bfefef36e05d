/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Globs in the kernel: user space makes one automaton of all globs of a rule (glob.go); a path is matched in one pass over
 * its bytes, whatever their number. */
#ifndef FAULTD_GLOB_H
#define FAULTD_GLOB_H

#include "path.h"

/* What a rule's globs are about. */
enum glob_use {
	GLOB_PATH = 0,
	GLOB_EXECUTABLE = 1,
};

static __always_inline __u32 glob_key(__u32 slot, enum glob_use use)
{
	return slot * GLOB_USES + use;
}

struct glob_run {
	const struct glob_table *table;
	const struct path_buffer *buffer;
	__u32 at;
	__u32 state; /* offset in bytes */
};

#define GLOB_STRIDE 8 /* bytes of the path that one turn of the loop takes */

/* Moves by one byte; next is longer than any state and class lead. */
#define GLOB_BYTE                                                                                     \
	if (at < PATH_SIZE) {                                                                         \
		__u32 class = table->class_of[(__u8)buffer->text[at++]];                              \
		state = *(const __u16 *)((const char *)table->next + class * sizeof(__u16) + state); \
	}

#define GLOB_4_BYTES GLOB_BYTE GLOB_BYTE GLOB_BYTE GLOB_BYTE

static long glob_step(__u64 turn, struct glob_run *run)
{
	const struct glob_table *table = run->table;
	const struct path_buffer *buffer = run->buffer;
	__u32 at = run->at, state = run->state & 0xffff;

	GLOB_4_BYTES GLOB_4_BYTES
	run->at = at;
	run->state = state;
	return at >= PATH_SIZE || state == 0 || state == table->all;
}

static __always_inline int glob_match(const struct glob_table *table, const struct path_buffer *buffer, __u32 start)
{
	struct glob_run run = {.table = table, .buffer = buffer, .at = start, .state = table->start};

	if (run.state != 0 && run.state != table->all)
		bpf_loop(PATH_SIZE / GLOB_STRIDE, glob_step, &run, 0);
	return *(const __u16 *)((const char *)table->next + (__u16)run.state);
}

/* Whether a path fits the globs of a rule. A rule without a table fits nothing. */
LOOP_BODY int globs_fit(__u32 slot, __u32 use, const struct path_text *path)
{
	__u32 key = glob_key(slot, use), zero = 0;
	void *tables = bpf_map_lookup_elem(&faultd_globs, &key);
	struct glob_table *table = tables ? bpf_map_lookup_elem(tables, &zero) : 0;

	if (!table || !path || path->state != PATH_KNOWN)
		return 0;
	struct path_buffer *buffer = path_buffer_at(path->buffer);

	return buffer && glob_match(table, buffer, path->start);
}

#endif
