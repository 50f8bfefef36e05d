//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For tests only: paths and globs as programs of all kinds see them. */
#include "glob.h"

struct probe {
	__u32 fd;       /* the file to look at */
	__u32 globs;    /* of this slot */
	__u32 state;    /* result: enum path_state */
	__u32 start;    /* result */
	__u32 fits;     /* result */
	__u32 runs;     /* result: how often programs came this far */
	char text[PATH_SIZE]; /* the path: result of walks, given to matches */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct probe);
} probes SEC(".maps");

const volatile __u32 probe_tgid;

static __always_inline struct probe *the_probe(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&probes, &zero);
}

static __always_inline struct file *file_of_probe(struct probe *probe)
{
	struct task_struct___vfs *task = (void *)bpf_get_current_task_btf();
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd, *file = 0;

	bpf_probe_read_kernel(&file, sizeof(file), files + probe->fd);
	return file;
}

static __always_inline void report(struct probe *probe, struct path_text *path)
{
	struct path_buffer *buffer = path_buffer_at(path->buffer);

	probe->runs++;
	probe->state = path->state;
	probe->start = path->start;
	probe->fits = globs_fit(probe->globs, GLOB_PATH, path);
	if (buffer)
		bpf_probe_read_kernel(probe->text, PATH_SIZE, buffer->text);
	path_release(path);
}

static __always_inline int find_file(struct file *file)
{
	struct probe *probe = the_probe();
	struct path_text path = {};

	if (!probe || bpf_get_current_pid_tgid() >> 32 != probe_tgid)
		return 0;
	at_file(file ? file : file_of_probe(probe), &path);
	path_find(&path);
	report(probe, &path);
	return 0;
}

SEC("syscall")
int probe_file(void *ctx)
{
	return find_file(0);
}

SEC("kprobe")
int probe_kprobe(void *ctx)
{
	return find_file(0);
}

SEC("tracepoint/syscalls/sys_enter_fsync")
int probe_tracepoint(void *ctx)
{
	return find_file(0);
}

SEC("lsm/file_open")
int probe_lsm(__u64 *ctx)
{
	return find_file((struct file *)ctx[0]);
}

SEC("fmod_ret/security_file_open")
int probe_fmod(__u64 *ctx)
{
	return find_file((struct file *)ctx[0]);
}

static __always_inline int find_entry(__u64 *ctx)
{
	struct probe *probe = the_probe();
	struct path_text path = {};

	if (!probe || bpf_get_current_pid_tgid() >> 32 != probe_tgid)
		return 0;
	at_entry((struct path *)ctx[0], (struct dentry *)ctx[1], &path);
	path_find(&path);
	report(probe, &path);
	return 0;
}

SEC("fmod_ret/security_path_unlink")
int probe_unlink(__u64 *ctx)
{
	return find_entry(ctx);
}

SEC("fmod_ret/security_path_mkdir")
int probe_mkdir(__u64 *ctx)
{
	return find_entry(ctx);
}

/* Of the text in the probe. */
SEC("syscall")
int probe_globs(void *ctx)
{
	struct probe *probe = the_probe();
	struct path_text path = {.state = PATH_KNOWN};
	struct path_buffer *buffer = probe ? take_path_buffer(&path) : 0;

	if (!buffer)
		return 0;
	path.start = probe->start;
	bpf_probe_read_kernel(buffer->text, PATH_SIZE, probe->text);
	probe->fits = globs_fit(probe->globs, GLOB_PATH, &path);
	path_release(&path);
	return 0;
}

/* What is timed: finding the path of the probe's file, matching the path that was left in buffer 0, both. */
SEC("tc")
int time_nothing(void *ctx)
{
	struct probe *probe = the_probe();

	return probe ? !file_of_probe(probe) : 0;
}

SEC("tc")
int time_find(void *ctx)
{
	struct probe *probe = the_probe();
	struct path_text path = {};

	if (!probe)
		return 0;
	at_file(file_of_probe(probe), &path);
	path_find(&path);
	probe->start = path.start;
	path_release(&path);
	return path.state == PATH_KNOWN;
}

SEC("tc")
int time_match(void *ctx)
{
	struct probe *probe = the_probe();
	struct path_text path = {.state = PATH_KNOWN};

	if (!probe)
		return 0;
	path.start = probe->start;
	return globs_fit(probe->globs, GLOB_PATH, &path);
}

SEC("tc")
int time_both(void *ctx)
{
	struct probe *probe = the_probe();
	struct path_text path = {};

	if (!probe)
		return 0;
	at_file(file_of_probe(probe), &path);
	path_find(&path);
	probe->fits = globs_fit(probe->globs, GLOB_PATH, &path);
	path_release(&path);
	return probe->fits;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
