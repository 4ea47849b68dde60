/*
 * Process 1 of a waiting container: it holds the container's namespaces and its network, and does
 * nothing else. What runs in the container is started beside it, in a process namespace of its
 * own, by a launcher that stays outside (enter.c).
 *
 * The launcher queues two signals to it: CALL, from whom the engine's SIGTERM is for, and LEAVE,
 * with the status that the container ends with.
 */
#include "launcher.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CALL SIGRTMIN
#define LEAVE (SIGRTMIN + 1)

void pause_call(void)
{
    sigqueue(1, CALL, (union sigval){0});
}

void pause_leave(int status)
{
    sigqueue(1, LEAVE, (union sigval){.sival_int = status});
}

_Noreturn void pause_run(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGCHLD, SIG_IGN); /* orphans are reaped by the kernel */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, PAUSE_NAME); /* from here on it is what the engine made of it, and listens */
    pid_t launcher = 0;
    for (;;) {
        siginfo_t info;
        int number = sigwaitinfo(&all, &info);
        if (number == CALL)
            launcher = info.si_pid;
        else if (number == LEAVE)
            exit(info.si_value.sival_int);
        else if ((number == SIGTERM || number == SIGINT) &&
                 (!launcher || kill(launcher, SIGTERM)))
            exit(EXIT_SUCCESS);
    }
}
