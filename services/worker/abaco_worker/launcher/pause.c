/*
 * Process 1 of a sandbox's container: it keeps the namespaces and the network alive, and does nothing
 * else. A launcher outside the container starts the program beside it, in its own PID namespace
 * (container.c).
 *
 * The launcher queues two signals: CALL, whose sender gets the engine's SIGTERM, and LEAVE, with the
 * exit status of the container. When a launcher for sandboxes is killed, the container exits, and with
 * it every program in it.
 */
#include "launcher.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALL_PIDFD_OPEN 434 /* of Linux 5.3; C libraries know it later */
#define CALL SIGRTMIN
#define LEAVE (SIGRTMIN + 1)

void pause_call(bool together)
{
    sigqueue(1, CALL, (union sigval){.sival_int = together});
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
    int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd polled[2] = {{signals, POLLIN, 0}, {-1, POLLIN, 0}}; /* signals, the launcher */
    pid_t launcher = 0;
    for (;;) {
        struct signalfd_siginfo info;
        if (poll(polled, 2, -1) < 0)
            continue;
        if (read(signals, &info, sizeof info) != sizeof info) {
            if (polled[1].revents)
                exit(EXIT_FAILURE);
            continue;
        }
        int number = (int)info.ssi_signo;
        if (number == CALL) {
            launcher = (pid_t)info.ssi_pid;
            if (info.ssi_int)
                polled[1].fd = (int)syscall(CALL_PIDFD_OPEN, launcher, 0);
            if (info.ssi_int && polled[1].fd < 0) /* it would not notice that the launcher is gone */
                exit(EXIT_FAILURE);
        } else if (number == LEAVE)
            exit(info.ssi_int);
        else if ((number == SIGTERM || number == SIGINT) &&
                 (!launcher || kill(launcher, SIGTERM)))
            exit(EXIT_SUCCESS);
    }
}
