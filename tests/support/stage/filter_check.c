/*
 * Compares the engine's filter of system calls with the search tree that the launcher makes of it. It is
 * compiled with the launcher's sources.
 *
 *   filter_check <pid of the container's process 1> <container's id>
 *
 * Prints: cases, differences, steps before and after, µs to load before and after.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENT_SETS 40
#define LOADS 50

static struct sock_filter tree[FILTER_STEPS];
static long cases, differences;

static uint64_t random_argument(void)
{
    static const uint64_t likely[] = {0, 1, 8, 0x20000, 0xffffffff, UINT64_MAX, 0x7e020000};
    uint64_t chosen = (uint64_t)rand();
    return chosen % 3 ? likely[chosen % 7] : chosen << (chosen % 40);
}

static void compare(const struct sock_filter *filter, size_t length, size_t tree_length,
                    uint32_t machine, uint32_t call)
{
    for (int set = 0; set < ARGUMENT_SETS; set++) {
        uint64_t arguments[6];
        for (int i = 0; i < 6; i++)
            arguments[i] = random_argument();
        cases++;
        differences += filter_run(filter, length, machine, call, arguments) !=
                       filter_run(tree, tree_length, machine, call, arguments);
    }
}

/* Each in a process of its own, which it then confines. The fastest counts. */
static long microseconds_to_load(struct sock_filter *filter, unsigned short length)
{
    long *best = mmap(NULL, sizeof *best, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *best = 1000000;
    for (int i = 0; i < LOADS; i++) {
        if (fork() == 0) {
            struct sock_fprog program = {length, filter};
            struct timespec began, ended;
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            clock_gettime(CLOCK_MONOTONIC, &began);
            int failed = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
            clock_gettime(CLOCK_MONOTONIC, &ended);
            long taken = (ended.tv_sec - began.tv_sec) * 1000000 +
                         (ended.tv_nsec - began.tv_nsec) / 1000;
            if (!failed && taken < *best)
                *best = taken;
            _exit(0);
        }
        wait(NULL);
    }
    return *best;
}

int main(int argc, char **argv)
{
    static char words[WORDS_BYTES];
    static const uint32_t machines[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64};
    if (argc != 3 || !container_learn((pid_t)atoi(argv[1]), argv[2], words) ||
        container.filters != 1) {
        fprintf(stderr, "filter_check: %s\n", words);
        return EXIT_FAILURE;
    }
    struct sock_filter *filter = (struct sock_filter *)container.filter[0].steps;
    unsigned short length = container.filter[0].length, tree_length = length;
    memcpy(tree, filter, sizeof tree);
    if (!filter_to_tree(tree, &tree_length)) {
        fprintf(stderr, "filter_check: the filter is not understood\n");
        return EXIT_FAILURE;
    }
    for (size_t m = 0; m < sizeof machines / sizeof *machines; m++) {
        for (uint32_t call = 0; call < 600; call++) {
            compare(filter, length, tree_length, machines[m], call);
            compare(filter, length, tree_length, machines[m], 0x40000000u + call);
            compare(filter, length, tree_length, machines[m], 0xffffffffu - call);
            compare(filter, length, tree_length, machines[m], (uint32_t)rand() * 2);
        }
    }
    printf("%ld %ld %d %d %ld %ld\n", cases, differences, length, tree_length,
           microseconds_to_load(filter, length), microseconds_to_load(tree, tree_length));
    return EXIT_SUCCESS;
}
