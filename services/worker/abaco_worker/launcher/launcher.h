/*
 * The declarations that the parts of the launcher share. main.c describes the launcher.
 *
 * Nothing here allocates memory. A run uses static buffers of a fixed size, whose pages cost nothing
 * until they are written.
 */
#ifndef ABACO_LAUNCHER_H
#define ABACO_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define REQUEST_BYTES (2u << 20) /* about the kernel's own limit on all arguments of a program */
#define REQUEST_STRINGS 16384u   /* arguments and variables together */
#define SPARE_VARIABLES 3u       /* PATH, HOSTNAME and HOME, if the request lacks them */
#define WORDS_BYTES 1024u        /* the maximal length of an error text */
#define REQUEST_ID_BYTES 128u    /* of a launcher of many requests */
#define CALL_CLOSE_RANGE 436     /* since Linux 5.9; not yet in every C library */
#define KERNEL_SIGNALS 64u
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* ---- request.c: decodes what is to be run */

struct request {
    uint64_t output_limit; /* the bytes of output to keep */
    uint64_t max_run_ms;   /* 0: no limit */
    uint64_t grace_ms;     /* between SIGTERM and SIGKILL */
    uint64_t stop_signal;  /* sent first; the grace begins then */
    const char *user;      /* as in USER of a Dockerfile; "" is root */
    const char *directory; /* "" is the root */
    char **argv;
    char **environment; /* has room for SPARE_VARIABLES more */
};

/* Decodes a request in place: its strings stay in the body. Sets `why` if it is malformed. */
bool request_parse(char *body, size_t length, struct request *request, const char **why);

/* Returns the value of a variable, or NULL. */
const char *variable(char **environment, const char *name);

/* ---- user.c: resolves the user */

#define GROUPS 1024u

struct account {
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[GROUPS]; /* the supplementary groups; the first is gid */
    char home[4096];
};

/* Resolves "", name, uid, name:group, uid:gid as Docker does. Sets `words` if it fails. */
bool account_resolve(const char *user, struct account *account, char words[WORDS_BYTES]);

/* ---- child.c: from the fork to the program */

#define NOT_FOUND 127 /* exit codes of a shell and of Docker */
#define NOT_EXECUTABLE 126
#define NO_SANDBOX 125 /* the program is not to blame, and was not started */

/* Becomes the requested program. On failure, writes "<exit code> <words>" to `failure`. */
_Noreturn void child_run(const struct request *request, int output, int failure);

/* ---- container.c: reads and enters the container */

enum capability_set { INHERITABLE, PERMITTED, EFFECTIVE, BOUNDING, AMBIENT, CAPABILITY_SETS };

#define FILTERS 8u
#define FILTER_STEPS 4096u /* the kernel's limit */
#define COVERS 64u
#define PATH_BYTES 256u

/* A mount below /proc, which hides a file or makes it read-only. */
struct cover {
    char path[PATH_BYTES];
    bool hides;
    unsigned long flags;
};

extern struct container {
    bool entered; /* false: there is no container, and no other field is set */
    int process;  /* /proc/<process 1> */
    int mounts, processes, network, ipc, uts, cgroup; /* namespaces */
    uint64_t capabilities[CAPABILITY_SETS];
    bool no_new_privileges, filtered, apparmor, spared;
    mode_t umask;
    char label[512]; /* of the security module; "" is none */
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

/* Splits a line of /proc/<pid>/cgroup into its controllers and the group's path on the host. False if
 * the hierarchy is not mounted, or the line is malformed. */
bool container_group(char *line, char path[PATH_BYTES], const char **controllers);

/* Reads all this from process 1 of a container. Sets `words` if it fails. */
bool container_learn(pid_t pid, const char *id, char words[WORDS_BYTES]);

/* The first makes later children enter the container's PID namespace. The second makes this process
 * enter the other namespaces, and its next child the program's own PID namespace. */
bool container_enter_processes(char words[WORDS_BYTES]);
bool container_enter(char words[WORDS_BYTES]);

/* ---- confine.c: confines the program */

/* The steps before and after the change of user. They set `words` if they fail. */
bool confine(char words[WORDS_BYTES]);
bool confine_finally(char words[WORDS_BYTES]);

/* Returns why this process cannot confine a program on this kernel, or NULL if it can. */
const char *confine_hindrance(void);

/* ---- pause.c: the container's process 1 */

#define PAUSE_NAME "abaco-pause"

_Noreturn void pause_run(void);

/* The launcher tells process 1 its own pid, and later that the container is to exit. If `together`, the
 * container also exits when the launcher does. */
void pause_call(bool together);
void pause_leave(int status);

/* ---- helper.c, main.c */

_Noreturn void helper_run(char **argv);
_Noreturn void launcher_run(int listener);

/* ---- usage.c: resource usage */

struct usage {
    uint64_t cpu_ns;
    uint64_t io_bytes;      /* to and from disks */
    uint64_t network_bytes; /* without loopback */
    uint64_t packets_sent;  /* over all links, loopback too */
    bool network_known;
    uint64_t oom_kills;
    uint64_t peak_bytes; /* memory of the control group, page cache included; 0 is unknown */
};

/* Opens the counters of a container through its /proc/<process 1>. The program cannot replace them. */
void usage_open(int process);

/* Reads the container's counters; one that does not exist is 0. `network` is /proc/net/dev of the
 * program's network, or -1 if that is the launcher's. */
void usage_read(int network, struct usage *usage);

/* Adds the usage of a reaped process, with that of the processes it has reaped itself. */
void usage_add(struct usage *total, uint64_t *max_rss_bytes, const struct rusage *process);

/* ---- wire.c: the connections */

struct command {
    enum { NOTHING, RUN, HALT, LEAVE } verb;
    bool in_sandbox; /* of RUN */
    char *body;
    size_t length;
    const char *id; /* of HALT; "" is none */
    int output; /* descriptors that were sent with RUN */
    int report;
};

#define CONNECTIONS 4u

extern bool many_requests; /* one runs after another, and each has an id */

/* Listens at a path. Exits if it fails. */
int wire_listen(const char *path);

/* Accepts a connection and sends the greeting; false if it was refused or is closed. */
bool wire_accept(int listener, const char *greeting, int descriptor);

/* Returns the descriptor of a connection, or -1. */
int wire_descriptor(size_t index);

/* Reads from a connection, and returns a command when it is complete. */
struct command wire_read(size_t index);

/* Sends a line to one connection, or to all; returns how many received it. With it goes a copy of a
 * descriptor, unless that is -1. */
bool wire_send(size_t index, const char *line, int descriptor);
size_t wire_broadcast(const char *line, int descriptor);

#endif
