/*
 * The child between fork and exec. It sets up what `docker run` sets up for a program: user, directory,
 * environment, standard streams, and default dispositions of signals.
 *
 * Files of the image, such as its tables of users, are read here and not in the launcher. So an image
 * with hostile files can only harm its own run, whose time limit is active already.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FAILURE 3
#define ORDERS 4 /* and 5, in a sandbox that waits for its request */
#define OOM_SCORE "10" /* as if it used one percent more memory */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int failure_pipe;

__attribute__((format(printf, 2, 3))) static _Noreturn void fail(int code, const char *format, ...)
{
    static char words[WORDS_BYTES];
    int head = snprintf(words, sizeof words, "%d ", code);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words + head, sizeof words - (size_t)head, format, arguments);
    va_end(arguments);
    if (write(failure_pipe, words, strlen(words)) < 0)
        code = NOT_EXECUTABLE;
    _exit(code);
}

/* Uses the system call, because the C library reserves two signals, and the parent may have ignored
 * those, too. All zeros is the default action on every architecture. */
static void default_signals(void)
{
    static const char by_default[128];
    for (int number = 1; number <= (int)KERNEL_SIGNALS; number++)
        syscall(SYS_rt_sigaction, number, by_default, NULL, KERNEL_SIGNALS / 8);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Makes the kernel kill the program before the launcher when memory runs out: the launcher must
 * report. */
static void raise_oom_score(void)
{
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0) {
        if (write(score, OOM_SCORE, strlen(OOM_SCORE)) < 0)
            errno = 0; /* the score is higher already */
        close(score);
    }
}

/* Closes the launcher's descriptors before a path of the image is used. In runc, a working directory
 * of /proc/self/fd/7 led to the host (CVE-2024-21626). A sandbox does it before it waits: else a worker
 * would not see the end of a connection that the launcher closes meanwhile. */
static void close_others(int output)
{
    if (dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0)
        fail(NOT_EXECUTABLE, "no standard output: %s", strerror(errno));
    /* The pipes may be at each other's place. */
    int spare = fcntl(failure_pipe, F_DUPFD_CLOEXEC, ORDERS + 2);
    if (spare < 0 || (sandbox.on && !sandbox_keep_orders(ORDERS)) ||
        dup3(spare, FAILURE, O_CLOEXEC) < 0)
        fail(NOT_EXECUTABLE, "cannot keep a pipe: %s", strerror(errno));
    failure_pipe = FAILURE;
    if (syscall(CALL_CLOSE_RANGE, FAILURE + 1 + 2 * sandbox.on, ~0u, 0) && container.entered)
        fail(NOT_EXECUTABLE, "cannot close what is open: %s", strerror(errno));
}

static void standard_streams(const struct account *account)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC); /* as runc does */
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        close(null);
    }
    /* So that the user may open /dev/stdout. Without the capability the owner does not change. */
    if (fchown(STDOUT_FILENO, account->uid, account->gid))
        errno = 0;
}

/* A launcher without the capabilities can still keep its own user. */
static void become(const struct account *account)
{
    if (setgroups(account->group_count, account->groups) && account->uid != geteuid())
        fail(NOT_EXECUTABLE, "cannot take the groups of user %u: %s", account->uid,
             strerror(errno));
    if (setresgid(account->gid, account->gid, account->gid))
        fail(NOT_EXECUTABLE, "cannot take group %u: %s", account->gid, strerror(errno));
    if (setresuid(account->uid, account->uid, account->uid))
        fail(NOT_EXECUTABLE, "cannot become user %u: %s", account->uid, strerror(errno));
}

/* Tries with the launcher's rights and then with the user's, as Docker does: either may be missing. */
static void enter_as(const char *directory, const struct account *account)
{
    const char *path = *directory ? directory : "/";
    bool entered = !chdir(path);
    become(account);
    if (!entered && chdir(path))
        fail(NOT_EXECUTABLE, "cannot enter the working directory %s: %s", path, strerror(errno));
    static char entered_path[PATH_MAX];
    if (syscall(SYS_getcwd, entered_path, sizeof entered_path) < 0 || *entered_path != '/')
        fail(NOT_EXECUTABLE, "the working directory %s is not in the image", path);
}

static void set_default(char **environment, const char *name, const char *value, char *storage,
                        size_t size)
{
    const char *present = variable(environment, name);
    if (present && *present)
        return;
    size_t length = strlen(name);
    char **place = environment;
    while (*place && (strncmp(*place, name, length) || (*place)[length] != '='))
        place++;
    if (!*place)
        place[1] = NULL;
    snprintf(storage, size, "%s=%s", name, value);
    *place = storage;
}

static void default_variables(char **environment, const struct account *account)
{
    static char path[sizeof DEFAULT_PATH + 8], hostname[512], home[sizeof account->home + 8];
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    set_default(environment, "PATH", DEFAULT_PATH, path, sizeof path);
    set_default(environment, "HOSTNAME", host, hostname, sizeof hostname);
    set_default(environment, "HOME", account->home, home, sizeof home);
}

static _Noreturn void refuse(const char *name, const char *path, int error)
{
    bool missing = error == ENOENT;
    if (missing && !access(path, F_OK))
        fail(NOT_FOUND, "exec: \"%s\": no such file or directory: "
                        "the interpreter or loader it names is not in the image", name);
    fail(missing ? NOT_FOUND : NOT_EXECUTABLE, "exec: \"%s\": %s", name, strerror(error));
}

static _Noreturn void search(char **argv, char **environment)
{
    static char path[PATH_MAX];
    const char *name = argv[0];
    bool denied = false;
    for (const char *place = variable(environment, "PATH"); place;) {
        size_t length = strcspn(place, ":");
        snprintf(path, sizeof path, "%.*s/%s", length ? (int)length : 1, length ? place : ".",
                 name);
        execve(path, argv, environment);
        if (errno == EACCES)
            denied = true;
        else if ((errno != ENOENT && errno != ENOTDIR) || !access(path, F_OK))
            refuse(name, path, errno);
        place = place[length] ? place + length + 1 : NULL;
    }
    if (denied)
        refuse(name, path, EACCES);
    fail(NOT_FOUND, "exec: \"%s\": executable file not found in $PATH", name);
}

void child_run(const struct request *request, int output, int failure)
{
    static struct account account;
    static char words[WORDS_BYTES];
    failure_pipe = failure;
    setsid();
    default_signals();
    int no_sandbox = sandbox.on ? NO_SANDBOX : NOT_EXECUTABLE;
    if (container.entered && !confine(words))
        fail(no_sandbox, "%s", words);
    if (!container.spared)
        raise_oom_score();
    close_others(output);
    if (sandbox.on && !sandbox_await_request(words))
        fail(no_sandbox, "%s", words);
    if (!request->argv[0] || !*request->argv[0])
        fail(NOT_FOUND, "no command specified");
    if (!account_resolve(request->user, &account, words))
        fail(NOT_EXECUTABLE, "%s", words);
    standard_streams(&account);
    enter_as(request->directory, &account);
    default_variables(request->environment, &account);
    if (container.entered && !confine_finally(words))
        fail(no_sandbox, "%s", words);
    if (strchr(request->argv[0], '/')) {
        execve(request->argv[0], request->argv, request->environment);
        refuse(request->argv[0], request->argv[0], errno);
    }
    search(request->argv, request->environment);
}
