/*
 * Process 1 of a sandbox's container: it keeps the namespaces and the network alive, and does nothing
 * else. A launcher outside the container starts the program beside it, in its own PID namespace
 * (container.c).
 *
 * The launcher queues two signals: CALL, whose sender gets the engine's SIGTERM, and LEAVE, with the
 * exit status of the container.
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
    signal(SIGCHLD, SIG_IGN); /* the kernel reaps orphans */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, PAUSE_NAME); /* tells the helper that the engine's setup is complete */
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
