/*
 * The helper: starts a launcher for each container that the worker has created.
 *
 *   launcher helper <folder>
 *
 * It reads lines from its standard input, and answers each with a line on its standard output:
 *
 *   start <pid> <container's id> <name>     ->  started <pid> <start time>
 *                                           or  error <words>
 *   sandbox <pid> <container's id> <name>   ->  the same; its launcher runs one request after another,
 *                                               each in a new sandbox (sandbox/spawn.c)
 *   connected <pid> <container's id> <name> ->  the same; the worker connects each sandbox' network
 *   check                                   ->  ok, or error <words>
 *
 * `pid` is the container's process 1 in the engine's PID namespace. The launcher listens in
 * <folder>/<name>/run. It is a process of the container's PID namespace, so it ends with the container
 * and not with the worker. It has none of the container's mounts, so no program can reach its socket,
 * its memory or its files. When its standard input is closed, the helper accepts no more requests, and
 * exits after the last of its launchers.
 *
 * The helper needs root's capabilities and the host's PID namespace, as runc does. A process that can
 * write to it can do the same through the engine.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_BYTES 1024
#define COPY_NAME "abaco-launcher"
#define COPY_BYTES (1u << 30)
#define MFD_MAY_EXECUTE 0x10u /* MFD_EXEC of Linux 6.3 */
#define PROGRAM_FOLDER "/.abaco"
#define PROGRAM PROGRAM_FOLDER "/launcher"

static bool is_sealed;

static _Noreturn void answer(int reply, const char *format, const char *words)
{
    dprintf(reply, format, words);
    _exit(EXIT_SUCCESS);
}

/* Removes the launcher's program from the container, since the pause program has been started. On a
 * read-only image an empty file remains. */
static void hide_program(void)
{
    pid_t child = fork();
    if (child == 0) {
        if (!setns(container.mounts, CLONE_NEWNS) &&
            !umount2(PROGRAM, MNT_DETACH | UMOUNT_NOFOLLOW) && !unlink(PROGRAM))
            rmdir(PROGRAM_FOLDER);
        _exit(EXIT_SUCCESS);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
}

/* Answers with this process' number and start time on the host: /proc is the host's here. */
static void answer_started(int reply)
{
    char link[32] = "", text[1024] = "";
    ssize_t length = readlink("/proc/self", link, sizeof link - 1);
    int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    close(file);
    char *field = got > 0 ? strrchr(text, ')') : NULL;
    for (int i = 0; field && i < 20; i++)
        if ((field = strchr(field, ' ')))
            field++;
    if (length <= 0 || !field)
        answer(reply, "error %s\n", "cannot see itself");
    field[strcspn(field, " ")] = '\0';
    dprintf(reply, "started %s %s\n", link, field);
}

/* Becomes the launcher. Everything that it uses of the container is open already. */
static _Noreturn void begin(const char *name, int reply)
{
    static char words[WORDS_BYTES];
    char path[LINE_BYTES];
    setsid();
    if (!container_enter(words))
        answer(reply, "error %s\n", words);
    snprintf(path, sizeof path, "%s/layers", name);
    if (sandbox.on && !sandbox_open(path, words))
        answer(reply, "error %s\n", words);
    snprintf(path, sizeof path, "%s/run", name);
    if (chdir(path))
        answer(reply, "error cannot enter its folder: %s\n", strerror(errno));
    int listener = wire_listen("./socket");
    if (chdir("/"))
        answer(reply, "error /: %s\n", strerror(errno));
    pause_call(sandbox.on);
    answer_started(reply);
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    close(null);
    close(reply);
    launcher_run(listener);
}

static _Noreturn void prepare(pid_t pid, const char *id, const char *name, bool sandboxes, int reply)
{
    static char words[WORDS_BYTES];
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_DUMPABLE, 0);
    if (!container_learn(pid, id, words))
        answer(reply, "error %s\n", words);
    hide_program();
    if (sandboxes && !is_sealed)
        answer(reply, "error %s\n", "the launcher cannot run from a sealed copy of itself");
    if (sandboxes && !sandbox_learn(words))
        answer(reply, "error %s\n", words);
    if (!container_enter_processes(words))
        answer(reply, "error %s\n", words);
    pid_t child = fork(); /* only a child enters the PID namespace */
    if (child == 0)
        begin(name, reply);
    if (child < 0)
        answer(reply, "error cannot fork: %s\n", strerror(errno));
    _exit(EXIT_SUCCESS);
}

static void forward_answer(int from)
{
    char line[LINE_BYTES + WORDS_BYTES];
    size_t length = 0;
    for (ssize_t got = 1; got > 0 && length < sizeof line && !memchr(line, '\n', length);) {
        got = read(from, line + length, sizeof line - length);
        length += got > 0 ? (size_t)got : 0;
    }
    if (!memchr(line, '\n', length))
        length = (size_t)snprintf(line, sizeof line, "error it ended while it was started\n");
    if (write(STDOUT_FILENO, line, length) < 0)
        exit(EXIT_FAILURE);
}

/* Returns what prevents the start of launchers, or NULL; needs no container. */
static const char *hindrance(void)
{
    static char text[8192];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    close(file);
    text[got > 0 ? got : 0] = '\0';
    const char *effective = strstr(text, "\nCapEff:"), *filter = strstr(text, "\nSeccomp:");
    static const int needed[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID,
                                 CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!effective || !(strtoull(effective + 8, NULL, 16) >> needed[i] & 1))
            return "it lacks capabilities of the machine's root";
    if (filter && strtol(filter + 9, NULL, 10) != 0)
        return "a filter of system calls is on it";
    int map = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    got = map < 0 ? -1 : read(map, text, sizeof text - 1);
    close(map);
    text[got > 0 ? got : 0] = '\0';
    unsigned long inner = 1, outer = 1, count = 0;
    if (sscanf(text, "%lu %lu %lu", &inner, &outer, &count) != 3 || inner || outer ||
        count != UINT32_MAX)
        return "it is in a user namespace, as with a rootless engine";
    return confine_hindrance();
}

static void execute(char *line)
{
    char verb[16], id[128], name[256];
    int pid, ends[2];
    if (!strcmp(line, "check\n")) {
        const char *why = hindrance();
        printf(why ? "error %s\n" : "ok\n", why);
        fflush(stdout);
        return;
    }
    sandbox.connected = !strncmp(line, "connected ", 10);
    bool sandboxes = sandbox.connected || !strncmp(line, "sandbox ", 8);
    if (sscanf(line, "%15s %d %127s %255s", verb, &pid, id, name) != 4 || pid <= 1 ||
        (!sandboxes && strcmp(verb, "start")) || strlen(id) < 12 || strchr(name, '/') || *name == '.') {
        puts("error malformed command");
        fflush(stdout);
        return;
    }
    if (pipe2(ends, O_CLOEXEC)) {
        perror("pipe");
        exit(EXIT_FAILURE);
    }
    if (fork() == 0) {
        close(ends[0]);
        prepare(pid, id, name, sandboxes, ends[1]);
    }
    close(ends[1]);
    forward_answer(ends[0]);
    close(ends[0]);
}

/* Runs the launchers, and each program before its exec, from a copy that cannot be written. Otherwise an
 * image could overwrite the host's file through /proc/self/exe (runc's CVE-2019-5736). */
static void run_sealed_copy(char **argv)
{
    char link[64] = "";
    if (readlink("/proc/self/exe", link, sizeof link - 1) > 0 &&
        !strncmp(link, "/memfd:" COPY_NAME, strlen("/memfd:" COPY_NAME))) {
        is_sealed = true;
        return;
    }
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int copy = memfd_create(COPY_NAME, MFD_ALLOW_SEALING | MFD_CLOEXEC | MFD_MAY_EXECUTE);
    if (copy < 0) /* before Linux 6.3 every one may */
        copy = memfd_create(COPY_NAME, MFD_ALLOW_SEALING | MFD_CLOEXEC);
    while (from >= 0 && copy >= 0 && sendfile(copy, from, NULL, COPY_BYTES) > 0)
        continue;
    if (from >= 0 && copy >= 0 &&
        !fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        fexecve(copy, argv, environ);
    close(from);
    close(copy);
}

/*
 * Leaves the login session that the worker was started in, as a service of the system has none. Else
 * programs would see its number in /proc/1/loginuid. Without CAP_AUDIT_CONTROL it stays.
 */
static void leave_login_session(void)
{
    int file = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return;
    if (write(file, "4294967295", 10) < 0)
        errno = 0;
    close(file);
}

_Noreturn void helper_run(char **argv)
{
    char line[LINE_BYTES];
    const char *folder = argv[2];
    run_sealed_copy(argv);
    leave_login_session();
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGCHLD, SIG_IGN); /* the kernel reaps launchers that exit */
    if (chdir(folder)) {
        perror(folder);
        exit(EXIT_FAILURE);
    }
    while (fgets(line, sizeof line, stdin))
        execute(line);
    while (wait(NULL) > 0 || errno == EINTR) /* a container can be removed after its launcher is reaped */
        continue;
    exit(EXIT_SUCCESS);
}
