/*
 * What the parts of the launcher share. See main.c for what it is and does.
 *
 * Nothing here allocates: what a run needs lies in static buffers of a fixed size, whose pages
 * cost nothing until they are written.
 */
#ifndef ABACO_LAUNCHER_H
#define ABACO_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define REQUEST_BYTES (2u << 20) /* Linux takes about as much for all arguments of a program */
#define REQUEST_STRINGS 16384u   /* words of the command and variables, together */
#define SPARE_VARIABLES 3u       /* PATH, HOSTNAME and HOME, where the request has none */
#define WORDS_BYTES 1024u        /* of a sentence for a person */
#define CALL_CLOSE_RANGE 436     /* of Linux 5.9; C libraries know it later */
#define KERNEL_SIGNALS 64u
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* ---- request.c: what is to be run */

struct request {
    uint64_t output_limit; /* bytes of output that are kept */
    uint64_t max_run_ms;   /* 0: no limit */
    uint64_t grace_ms;     /* between SIGTERM and SIGKILL */
    uint64_t stop_signal;  /* what asks the program to end, before the grace begins */
    const char *user;      /* as in USER of a Dockerfile; "" is root */
    const char *directory; /* "" is the root */
    char **argv;
    char **environment; /* SPARE_VARIABLES more fit behind its end */
};

/* Reads a request in place: its strings stay where they are. Says why when it is none. */
bool request_parse(char *body, size_t length, struct request *request, const char **why);

/* The value of a variable, or NULL. */
const char *variable(char **environment, const char *name);

/* ---- user.c: who runs it */

#define GROUPS 1024u

struct account {
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[GROUPS]; /* the supplementary ones; the first is gid */
    char home[4096];
};

/* Resolves "", name, uid, name:group, uid:gid as Docker does. Puts words when it can't. */
bool account_resolve(const char *user, struct account *account, char words[WORDS_BYTES]);

/* ---- child.c: from the fork to the program */

/* Becomes the requested program. What hinders it goes to `failure` as "<exit code> <words>". */
_Noreturn void child_run(const struct request *request, int output, int failure);

/* ---- container.c: where it is run */

enum capability_set { INHERITABLE, PERMITTED, EFFECTIVE, BOUNDING, AMBIENT, CAPABILITY_SETS };

#define FILTERS 8u
#define FILTER_STEPS 4096u /* the kernel's own limit */
#define COVERS 64u
#define PATH_BYTES 256u

/* A mount below /proc: it hides what is there, or makes it read-only. */
struct cover {
    char path[PATH_BYTES];
    bool hides;
    unsigned long flags;
};

extern struct container {
    bool entered; /* else there is none, and all that follows is nothing */
    int process;  /* /proc/<process 1> */
    int mounts, processes, network, ipc, uts, cgroup; /* namespaces */
    uint64_t capabilities[CAPABILITY_SETS];
    bool no_new_privileges, filtered, apparmor, spared;
    mode_t umask;
    char label[512]; /* of a security module; "" is none */
    char oom_score[16];
    struct rlimit limits[RLIM_NLIMITS];
    unsigned long proc_flags;
    size_t covers;
    struct cover cover[COVERS];
    size_t filters;
    struct {
        unsigned short length;
        uint64_t steps[FILTER_STEPS];
    } filter[FILTERS];
} container;

/* Reads all that from process 1 of a container. Says why when it can't. */
bool container_learn(pid_t pid, const char *id, char words[WORDS_BYTES]);

/* For the children to come; then for this process, and the program's process namespace for its. */
bool container_enter_processes(char words[WORDS_BYTES]);
bool container_enter(char words[WORDS_BYTES]);

/* ---- confine.c: what the program is held by */

/* Before the user's steps, and after them. Say why when they can't. */
bool confine(char words[WORDS_BYTES]);
bool confine_finally(char words[WORDS_BYTES]);

/* Why this kernel, or what holds this process, does not let it; else NULL. */
const char *confine_hindrance(void);

/* ---- pause.c: the container's process 1 */

#define PAUSE_NAME "abaco-pause"

_Noreturn void pause_run(void);

/* From its launcher: who that is, and that the container is to end. */
void pause_call(void);
void pause_leave(int status);

/* ---- helper.c, main.c */

_Noreturn void helper_run(const char *folder);
_Noreturn void launcher_run(int listener);

/* ---- usage.c: what it used */

struct usage {
    uint64_t cpu_ns;
    uint64_t io_bytes;      /* to and from disks */
    uint64_t network_bytes; /* to and from other machines, loopback left out */
    uint64_t oom_kills;
    uint64_t peak_bytes; /* memory of the control group, page cache included; 0 is unknown */
};

/* Opens the counters of a container, by its /proc/<process 1>: what it puts there later is not read. */
void usage_open(int process);

/* The container's counters as they stand; 0 where there is none. */
void usage_read(struct usage *usage);

/* Adds what a process that was waited for has used, the processes it waited for included. */
void usage_add(struct usage *total, uint64_t *max_rss_bytes, const struct rusage *process);

/* ---- wire.c: who asks for it */

struct command {
    enum { NOTHING, RUN, HALT, LEAVE } verb;
    char *body;
    size_t length;
    int output; /* descriptors that came with RUN */
    int report;
};

#define CONNECTIONS 4u

/* Begins to listen. Ends the program when it can't. */
int wire_listen(const char *path);

/* Takes a new connection, and greets it; false when it was not to be taken, or went away. */
bool wire_accept(int listener, const char *greeting);

/* The descriptor of a connection, or -1. */
int wire_descriptor(size_t index);

/* Reads what has come on a connection; a command when one is complete. */
struct command wire_read(size_t index);

/* One line to one connection, to all. How many got it. */
bool wire_send(size_t index, const char *line);
size_t wire_broadcast(const char *line);

#endif
