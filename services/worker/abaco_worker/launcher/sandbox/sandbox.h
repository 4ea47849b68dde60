/*
 * A sandbox: what one message's program runs in. It is made in a container that stays (the slot's),
 * and removed when the program has ended. spawn.c has the order of the steps.
 */
#ifndef ABACO_SANDBOX_H
#define ABACO_SANDBOX_H

#include "../launcher.h"

#include <fcntl.h>
#include <linux/types.h>
#include <sys/stat.h>

/* System calls of Linux 5.2 to 5.12; C libraries know them later. The numbers are the same on every
 * machine. */
#define CALL_OPEN_TREE 428
#define CALL_MOVE_MOUNT 429
#define CALL_FSOPEN 430
#define CALL_FSCONFIG 431
#define CALL_FSMOUNT 432
#define CALL_CLONE3 435
#define CALL_OPENAT2 437
#define CALL_MOUNT_SETATTR 442
#define TREE_CLONE 1u
#define TREE_CLOEXEC ((unsigned int)O_CLOEXEC)
#define FROM_DESCRIPTOR 0x04u
#define TO_DESCRIPTOR 0x40u
#define CONFIG_FLAG 0
#define CONFIG_STRING 1
#define CONFIG_CREATE 6
#define ATTRIBUTE_RDONLY 0x1u
#define ATTRIBUTE_NOSUID 0x2u
#define ATTRIBUTE_NODEV 0x4u
#define ATTRIBUTE_NOEXEC 0x8u
#define ATTRIBUTE_ATIME 0x70u /* the bits of which relatime is none */
#define ATTRIBUTE_NOATIME 0x10u
#define ATTRIBUTE_STRICTATIME 0x20u
#define ATTRIBUTE_NODIRATIME 0x80u

#define MESSAGE "message" /* the name of its directory and its groups: there is one at a time */

/* ---- what a request asks for */

#define NO_NEW_PRIVILEGES 1u /* flags */
#define OWN_NETWORK 2u
#define CONNECTED_NETWORK 4u
#define NETWORKS (OWN_NETWORK | CONNECTED_NETWORK)
#define KNOWN_FLAGS (NO_NEW_PRIVILEGES | NETWORKS)

struct sandbox_limits {
    uint64_t memory_bytes; /* 0: the container's own limit applies */
    uint64_t processes;
    uint64_t cpu_us; /* of each 100 ms */
    uint64_t flags;
};

struct sandbox_request {
    const char *id; /* printable ASCII without spaces; "" is none */
    struct sandbox_limits limits;
};

/* Takes the sandbox's fields from the beginning of a request's body. */
bool sandbox_parse(char **body, size_t *length, struct sandbox_request *request);

/* With CONNECTED_NETWORK: skips the lines for /etc/hosts, which come next. */
bool sandbox_skip_hosts(char **body, size_t *length);

/* ---- plan.c: the mounts of the container, and what each becomes in a sandbox */

#define STEPS 128u
#define NODES 128u
#define OPTION_BYTES 512u

enum step_kind {
    FRESH,   /* a new file system of the same type and options */
    COVERED, /* a part of /proc, read-only */
    PART,    /* a part of a new tmpfs: /dev/null over a file that is masked */
    MASK,    /* an empty read-only tmpfs: the container's own */
    GROUP,   /* a control group */
    COPY,    /* a file: a copy */
    VOLUME,  /* a directory: an overlay of its own */
};

struct step {
    enum step_kind kind;
    char path[PATH_BYTES];      /* without links: the kernel's own name of the mount point */
    char part[PATH_BYTES];      /* of COVERED and PART: where it is in the sandbox */
    char type[32], source[64];
    char options[OPTION_BYTES]; /* of the file system */
    unsigned int attributes;    /* of the mount */
    dev_t device;
    size_t first_node, nodes;   /* what a new tmpfs holds */
    int made;                   /* the mount, before it is at its place */
    int original;               /* of COPY: the container's file, */
    struct timespec changed;    /* and when it was changed last before it was copied */
};

/* A device, directory or link in a tmpfs of the container: /dev/null. */
struct node {
    char path[64];
    char link[64];
    mode_t mode;
    dev_t device;
    uid_t uid;
    gid_t gid;
};

extern struct plan {
    unsigned int root_attributes;
    char root_context[OPTION_BYTES]; /* of SELinux; "" is none */
    size_t steps, nodes;
    struct step step[STEPS];
    struct node node[NODES];
} plan;

/* Reads the container's mounts. */
bool plan_mounts(char words[WORDS_BYTES]);

/* Whether the engine has changed a file since plan_remember. It writes hosts and resolv.conf when it
 * connects a network. */
void plan_remember(void);
bool plan_is_stale(void);

/* ---- filter.c: the engine's filter of system calls, in less time */

struct sock_filter;

/* Puts a search tree before a filter of `*length` steps. Leaves it as it is if it cannot. */
bool filter_to_tree(struct sock_filter *filter, unsigned short *length);

/* What a filter answers; the arguments are those of the call. */
uint32_t filter_run(const struct sock_filter *filter, size_t length, uint32_t machine, uint32_t call,
                    const uint64_t arguments[6]);

/* ---- groups.c: a control group for each message */

/* Finds the container's groups; before the launcher enters its group namespace, in which their paths
 * are others. */
bool groups_find(char words[WORDS_BYTES]);

/* Tries where groups can be made. Where they cannot, messages have none, and the container's own
 * limits and counters are used. */
void groups_open(void);
bool groups_make(char words[WORDS_BYTES]);
bool groups_limit(const struct sandbox_limits *limits, pid_t child, char words[WORDS_BYTES]);
bool groups_join(char words[WORDS_BYTES]);
bool groups_read(struct usage *usage);
void groups_remove(void);

/* The directory of a message's group, by the device number of its file system; -1 is none. */
int groups_directory(dev_t device);

/* ---- layer.c: the directory on disk that holds what a program writes */

bool layer_open(const char *folder, char words[WORDS_BYTES]);
bool layer_make(char words[WORDS_BYTES]);
void layer_remove(void);

/* A second process removes what takes long. True if it was the process that ended; the other waits until
 * there is none. */
bool layer_reaped(pid_t pid);
void layer_finish(void);

/* A descriptor of the slot's directory. */
int layer_directory(void);

/* ---- root.c: the child's file system */

bool root_build(char words[WORDS_BYTES]);

/* The file that a sandbox has as /etc/hosts, to be written to until the program starts; -1 is none. */
int root_hosts(void);

/* ---- network.c: a network namespace for each message */

/* Reads and writes what an engine sets in a container's network. */
void network_learn(void);
bool network_set(int proc);

/* Makes an empty one, and enters it. */
bool network_unshare(char words[WORDS_BYTES]);

/* Enters the one that the worker connects; makes it if there is none. Then back to the container's. */
bool network_enter(char words[WORDS_BYTES]);
void network_return(void);
void network_drop(void);

/* Whether no program of the container may change links, addresses or routes. */
bool network_is_fixed(void);

/* Its descriptor, and that of /proc/net/dev in it; -1 is none. */
int network_descriptor(void);
int network_counters(void);

/* ---- spawn.c: all together */

extern struct sandbox {
    bool on;
    bool own_cgroups; /* the container has a control group namespace of its own */
    bool connected;   /* the worker connects the network of each message */
    uint64_t network; /* of the sandbox that was made last: a flag, or 0 for the container's */
    struct request request; /* in the child, when it has come */
} sandbox;

/* In the helper: what a launcher for sandboxes must know. Then in the launcher itself. */
bool sandbox_learn(char words[WORDS_BYTES]);
bool sandbox_open(const char *folder, char words[WORDS_BYTES]);

/* A child that is process 1 of a new process namespace; like fork. -1: see the words. It makes its
 * sandbox at once, before there is a request. */
pid_t sandbox_spawn(uint64_t network, char words[WORDS_BYTES]);

/* Sets the child's limits and sends it the request. If the child has ended, its report says why. */
bool sandbox_start(pid_t child, const struct sandbox_limits *limits, const char *body, size_t length,
                   char words[WORDS_BYTES]);

/* In the child: its file system, control groups and network. When it is confined, it closes all
 * descriptors but one, and waits for its request. */
bool sandbox_enter(char words[WORDS_BYTES]);
bool sandbox_keep_orders(int lowest);
bool sandbox_await_request(char words[WORDS_BYTES]);

/* What the message used; then nothing of it is left. */
bool sandbox_measure(struct usage *usage);
void sandbox_remove(void);

/* "cannot make the sandbox: <what>: <the error>"; false. */
bool sandbox_failure(char words[WORDS_BYTES], const char *what);

#endif
