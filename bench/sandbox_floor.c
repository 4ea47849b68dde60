/*
 * The kernel's part of a sandbox: the launcher's own steps in a loop, without a request, a socket, output
 * or a report. It is compiled with the launcher's sources (bench/sandboxes.py).
 *
 *   floor <pid of the container's process 1> <container's id> <folder> <count>
 *
 * Prints the ns of each sandbox from before the clone until nothing is left of it, then the CPU time of
 * all, in ns.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char words[WORDS_BYTES];

static _Noreturn void end(const char *what)
{
    fprintf(stderr, "floor: %s\n", what);
    exit(EXIT_FAILURE);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t processor_time(int who)
{
    struct rusage used;
    getrusage(who, &used);
    return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * SECOND +
           (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000;
}

/* As the helper does: the pausing program's file is no part of the image. */
static void hide_program(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(setns(container.mounts, CLONE_NEWNS) || umount2("/.abaco/launcher", MNT_DETACH));
    waitpid(child, NULL, 0);
}

static void run(void)
{
    /* As request.c reads it: limits, stop signal, user, directory, and the command. */
    static const char body[] = "0\0" "0\0" "0\0" "15\0" "\0" "\0" "1\0" "/bin/true";
    struct sandbox_limits limits = {0};
    int output = open("/dev/null", O_WRONLY | O_CLOEXEC), status;
    pid_t child = sandbox_spawn(0, words);
    if (child == 0)
        child_run(&sandbox.request, output, STDERR_FILENO);
    if (child < 0 || !sandbox_start(child, &limits, body, sizeof body, words))
        end(words);
    if (waitpid(child, &status, 0) != child || status)
        end("the program failed");
    struct usage usage;
    sandbox_measure(&usage);
    sandbox_remove();
    close(output);
}

static void run_all(const char *folder, int count)
{
    if (!container_enter(words) || !sandbox_open(folder, words))
        end(words);
    for (int i = 0; i < count; i++) {
        uint64_t began = now();
        run();
        printf("%" PRIu64 "\n", now() - began);
    }
    printf("cpu %" PRIu64 "\n", processor_time(RUSAGE_SELF) + processor_time(RUSAGE_CHILDREN));
}

int main(int argc, char **argv)
{
    if (argc != 5)
        end("usage: floor <pid> <container's id> <folder> <count>");
    if (!container_learn((pid_t)atoi(argv[1]), argv[2], words))
        end(words);
    hide_program();
    if (!sandbox_learn(words) || !container_enter_processes(words))
        end(words);
    fflush(stdout);
    if (fork() == 0) {
        run_all(argv[3], atoi(argv[4]));
        return EXIT_SUCCESS;
    }
    int status;
    wait(&status);
    return WEXITSTATUS(status);
}
