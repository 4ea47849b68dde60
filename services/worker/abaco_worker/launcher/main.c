/*
 * The launcher: starts an image's command in a container that is ready before there is a message.
 *
 *   launcher pause             process 1 of such a container (pause.c)
 *   launcher helper <folder>   starts a launcher beside each container (helper.c)
 *   launcher <socket> [again]  a launcher without a container, for tests; `again`: of many requests
 *
 * It listens on a Unix socket for one request and runs it as a child process. In a container, the
 * child is process 1 of a PID namespace and is confined as the container is (confine.c). The child's
 * output goes through a pipe into a file, up to a limit. The launcher also reads and counts the rest,
 * so that the child never blocks on a full pipe. When the child has ended, the launcher writes the
 * report into a file, sends it to every connection, and kills all other processes of the container.
 * The launcher itself continues, and with it the container, until the worker removes the container:
 * a host must remove its containers one at a time (docs/adr/0008). Without a container the launcher
 * exits, and until then it is an init process: it reaps orphans and forwards signals.
 *
 * A launcher for sandboxes (sandbox/spawn.c) runs one request after another, each in a new sandbox. Each
 * request has an id, and every line about it names the id. So a worker that connects again knows which
 * request a line is about, and a halt that comes late ends no other request.
 *
 * The run does not depend on a connection: a restarted worker connects again, or reads the report
 * from its file.
 *
 * The lines that it sends; `<id>` only from a launcher of many requests:
 *
 *   waiting                    it is idle: the next request is run at once
 *   started <id> <ns>          sent when the program starts: the start, ns since 1970
 *   report <id> key=value...   how the run ended; see compose_report
 *   refused <id> <words>       the request was not run, and leaves nothing
 *   error <words>              the command is malformed or comes too late; nothing was done
 *
 * The greeting of a new connection is `waiting`, `started`, or the report that nobody has got. A
 * launcher of many requests begins with the line that ended its last request, if there was one, and
 * sends `waiting` or `started` after it. A request that was sent whole before is in that greeting.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (64 * 1024)
#define LINE_BYTES (2 * WORDS_BYTES)
#define YEARS_MS (UINT64_C(100) * 365 * 86400 * 1000)
#define MAX_READS_IN_A_ROW 16 /* then the other descriptors are served */

enum state { WAITING, STARTING, RUNNING, ENDED };
enum reason { BY_ITSELF, HALTED, TIMED_OUT, STOPPED };

static enum state state = WAITING;
static char status_line[LINE_BYTES] = "waiting\n";
static char last_line[LINE_BYTES]; /* how the last of many requests ended; "" is none */

static struct {
    pid_t child;
    int exit_status;
    int output_pipe, failure_pipe; /* -1 when closed */
    int output_file, report_file;
    int network; /* of the program, for its counters; -1: the launcher's */
    bool network_unused; /* no packet was sent in it */
    uint64_t output_limit, grace_ms;
    uint64_t kept, dropped; /* bytes of output */
    uint64_t started;       /* wall clock, ns since 1970 */
    uint64_t began, first_output, ended; /* monotonic clock; 0: not yet */
    uint64_t deadline;                   /* of the next signal, the stop signal or SIGKILL; 0: none */
    int stop_signal;
    enum reason reason;
    struct usage before, processes;
    uint64_t max_rss_bytes;
    bool refused; /* there was no sandbox for it, and the program was not started */
    char id[REQUEST_ID_BYTES + 2]; /* and a space; "" in a launcher of one request */
    char words[WORDS_BYTES];
} run = {.output_pipe = -1, .failure_pipe = -1, .network = -1};

static uint64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void close_pipe(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

/* Of a number that a client has sent: a very long time is none that ends. */
static uint64_t nanoseconds_of(uint64_t milliseconds)
{
    return milliseconds < YEARS_MS ? milliseconds * MILLISECOND : YEARS_MS * MILLISECOND;
}

/* ---- starting */

/* Makes a pipe whose reading end does not block. */
static bool make_pipe(int ends[2])
{
    return !pipe2(ends, O_CLOEXEC) && !fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static void set_words(const char *words)
{
    snprintf(run.words, sizeof run.words, "%s", words);
}

/* Of output, and of why the program was not started; false if there are none. */
static bool make_pipes(int output[2], int failure[2], char words[WORDS_BYTES])
{
    output[0] = output[1] = failure[0] = failure[1] = -1;
    if (make_pipe(output) && make_pipe(failure))
        return true;
    snprintf(words, WORDS_BYTES, "cannot make a pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        close_pipe(&output[i]);
        close_pipe(&failure[i]);
    }
    return false;
}

/* The sandbox of the next message. Its child waits for the request. */
static struct {
    pid_t child; /* 0: none; -1: it could not be made, see the words */
    int output_pipe, failure_pipe;
    char words[WORDS_BYTES];
} prepared = {.output_pipe = -1, .failure_pipe = -1};

static void prepare(uint64_t network)
{
    int output[2], failure[2];
    prepared.child = -1;
    if (!make_pipes(output, failure, prepared.words))
        return;
    prepared.child = sandbox_spawn(network, prepared.words);
    if (prepared.child == 0)
        child_run(&sandbox.request, output[1], failure[1]);
    close(output[1]);
    close(failure[1]);
    prepared.output_pipe = output[0];
    prepared.failure_pipe = failure[0];
}

static void prepare_next(void)
{
    prepare(sandbox.connected ? CONNECTED_NETWORK : 0);
}

static void discard_prepared(void)
{
    if (prepared.child > 0) {
        kill(prepared.child, SIGKILL);
        waitpid(prepared.child, NULL, 0);
    }
    prepared.child = 0;
    close_pipe(&prepared.output_pipe);
    close_pipe(&prepared.failure_pipe);
    sandbox_remove();
}

static void fail_to_start(void)
{
    run.exit_status = W_EXITCODE(126, 0);
    run.ended = run.began;
    run.refused = sandbox.on;
    close_pipe(&run.failure_pipe); /* its end does not mean that a program was started */
}

/* Whether it has died, or has written why it will. */
static bool prepared_is_broken(void)
{
    struct pollfd failure = {prepared.failure_pipe, POLLIN, 0};
    return prepared.child <= 0 || poll(&failure, 1, 0) != 0;
}

/* One that is broken is made again. */
static void start_prepared(const struct sandbox_limits *limits, const struct command *command)
{
    uint64_t network = limits->flags & NETWORKS;
    if (prepared_is_broken() || network != sandbox.network || plan_is_stale()) {
        discard_prepared();
        prepare(network);
    }
    run.child = prepared.child;
    run.output_pipe = prepared.output_pipe;
    run.failure_pipe = prepared.failure_pipe;
    prepared.child = 0;
    prepared.output_pipe = prepared.failure_pipe = -1;
    if (run.child < 0) {
        set_words(prepared.words);
        fail_to_start();
    } else if (!sandbox_start(run.child, limits, command->body, command->length, run.words)) {
        kill(run.child, SIGKILL);
        waitpid(run.child, NULL, 0);
        fail_to_start();
    }
}

static void start_child(const struct request *request)
{
    int output[2], failure[2];
    if (!make_pipes(output, failure, run.words))
        return fail_to_start();
    run.child = fork();
    if (run.child == 0)
        child_run(request, output[1], failure[1]);
    close(output[1]);
    close(failure[1]);
    run.output_pipe = output[0];
    run.failure_pipe = failure[0];
    if (run.child < 0) {
        snprintf(run.words, sizeof run.words, "cannot fork: %s", strerror(errno));
        fail_to_start();
    }
}

static void start(const struct request *request, const struct sandbox_request *sandbox_request,
                  const struct command *command)
{
    if (many_requests)
        snprintf(run.id, sizeof run.id, "%s ", sandbox_request->id);
    run.output_file = command->output;
    run.report_file = command->report;
    run.output_limit = request->output_limit;
    run.grace_ms = request->grace_ms;
    run.stop_signal = (int)request->stop_signal;
    if (sandbox_request->limits.flags & CONNECTED_NETWORK)
        run.network = network_counters();
    usage_read(run.network, &run.before);
    run.started = now(CLOCK_REALTIME);
    run.began = now(CLOCK_MONOTONIC);
    if (request->max_run_ms)
        run.deadline = run.began + nanoseconds_of(request->max_run_ms);
    state = STARTING;
    snprintf(status_line, sizeof status_line, "started %s%" PRIu64 "\n", run.id, run.started);
    if (sandbox.on)
        start_prepared(&sandbox_request->limits, command);
    else
        start_child(request);
}

/* The pipe is closed by a successful exec. Before that the child may write why exec failed. */
static void read_failure(void)
{
    char text[WORDS_BYTES];
    ssize_t got = read(run.failure_pipe, text, sizeof text - 1);
    if (got < 0)
        return;
    close_pipe(&run.failure_pipe);
    if (got > 0) {
        text[got] = '\0';
        run.refused = strtol(text, NULL, 10) == NO_SANDBOX;
        set_words(text + strcspn(text, " ") + 1);
    } else {
        state = RUNNING;
        wire_broadcast(status_line, -1);
    }
}

/* ---- output */

static void keep(const char *data, size_t length)
{
    uint64_t room = run.output_limit - run.kept;
    size_t wanted = length < room ? length : (size_t)room;
    while (wanted > 0) {
        ssize_t written = write(run.output_file, data, wanted);
        if (written <= 0) { /* the disk is full: count the rest as dropped */
            run.output_limit = run.kept;
            break;
        }
        run.kept += (uint64_t)written;
        data += written;
        length -= (size_t)written;
        wanted -= (size_t)written;
    }
    run.dropped += length;
}

/* Reads once; false if there is no data now. */
static bool read_output(size_t at_most)
{
    static char data[READ_BYTES];
    ssize_t got = read(run.output_pipe, data, at_most < sizeof data ? at_most : sizeof data);
    if (got == 0)
        close_pipe(&run.output_pipe);
    if (got <= 0)
        return false;
    if (!run.first_output)
        run.first_output = now(CLOCK_MONOTONIC);
    keep(data, (size_t)got);
    return true;
}

/* Reads what is in the pipe now, and no more: other processes may hold it and continue to write. */
static void drain_output(void)
{
    int left = 0;
    if (run.output_pipe < 0 || ioctl(run.output_pipe, FIONREAD, &left))
        return;
    uint64_t end = run.kept + run.dropped + (uint64_t)left;
    while (run.output_pipe >= 0 && run.kept + run.dropped < end)
        if (!read_output((size_t)(end - run.kept - run.dropped)))
            break;
}

/* ---- stopping */

/* In a container, signals process 1 only, as Docker does. Otherwise signals the child's process group,
 * or only the child before it has a group. */
static void signal_child(int number)
{
    if (run.child > 0 && !run.ended && (container.entered || kill(-run.child, number)))
        kill(run.child, number);
}

static void stop(enum reason reason)
{
    run.reason = reason;
    signal_child(run.stop_signal);
    run.deadline = now(CLOCK_MONOTONIC) + nanoseconds_of(run.grace_ms);
}

static void check_deadline(void)
{
    if (!run.deadline || now(CLOCK_MONOTONIC) < run.deadline)
        return;
    if (run.reason == BY_ITSELF || run.reason == STOPPED) {
        stop(TIMED_OUT);
    } else {
        signal_child(SIGKILL);
        run.deadline = 0;
    }
}

static void reap(void)
{
    struct rusage usage;
    int status;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &usage)) > 0;) {
        if (pid == prepared.child) {
            prepared.child = 0; /* it is made again when there is a request */
            continue;
        }
        if (sandbox.on && layer_reaped(pid))
            continue;
        usage_add(&run.processes, &run.max_rss_bytes, &usage);
        if (pid == run.child) {
            run.exit_status = status;
            run.ended = now(CLOCK_MONOTONIC);
        }
    }
}

/* Exits; the container's exit status is the program's. */
static _Noreturn void leave(void)
{
    int status = run.exit_status;
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (sandbox.on) {
        discard_prepared();
        layer_finish();
    }
    if (container.entered)
        pause_leave(code);
    exit(code);
}

static void take_signals(int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        int number = (int)info.ssi_signo;
        if (info.ssi_code > 0)
            continue; /* from the kernel: a child ended, or a file is too large */
        if (container.entered && (info.ssi_pid != 1 || number != SIGTERM))
            continue; /* in a container only process 1 forwards that the engine stops it */
        if (state == WAITING && (number == SIGTERM || number == SIGINT))
            leave();
        if (state == ENDED && number == SIGTERM)
            leave();
        if (container.entered && run.reason == BY_ITSELF)
            run.reason = STOPPED;
        signal_child(container.entered ? run.stop_signal : number);
    }
}

/* ---- the report */

static uint64_t larger(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

static uint64_t grown(uint64_t before, uint64_t after)
{
    return after > before ? after - before : 0;
}

/* The words contain names from the image, so they must not contain the end of a line. */
static void make_printable(char *words)
{
    for (; *words; words++)
        if ((unsigned char)*words < ' ' || *words == 0x7f)
            *words = '?';
}

/*
 * Times are ns, sizes are bytes. `signal` is the one that ended the child, or 0. CPU and I/O have two
 * accounts, and each is incomplete: that of the processes lacks those that nobody waited for, that of
 * the control group lacks late writes. The report has the larger one. `memory` is the peak of the
 * largest process, `cgroup_memory` the peak of the whole group with its page cache and with whatever
 * ran before; 0 is unknown.
 */
static void compose_report(void)
{
    struct usage after;
    make_printable(run.words);
    if (run.refused) {
        snprintf(status_line, sizeof status_line, "refused %s%s\n", run.id, run.words);
        return;
    }
    usage_read(run.network, &after);
    run.network_unused = run.network >= 0 && run.before.network_known && after.network_known &&
                         after.packets_sent == run.before.packets_sent;
    /* A group that only the message was in is exact. */
    if (sandbox.on && sandbox_measure(&after))
        run.before.cpu_ns = run.before.oom_kills = run.processes.cpu_ns = 0;
    int status = run.exit_status;
    snprintf(status_line, sizeof status_line,
             "report %sexit=%d signal=%d started=%" PRIu64 " ended=%" PRIu64 " first_output=%" PRIu64
             " cpu=%" PRIu64 " memory=%" PRIu64 " cgroup_memory=%" PRIu64 " io=%" PRIu64
             " network=%" PRIu64 " kept=%" PRIu64 " dropped=%" PRIu64 " oom=%" PRIu64
             " halted=%d timed_out=%d stopped=%d words=%s\n",
             run.id, WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
             run.started, run.started + grown(run.began, run.ended),
             run.first_output ? run.started + grown(run.began, run.first_output) : 0,
             larger(grown(run.before.cpu_ns, after.cpu_ns), run.processes.cpu_ns),
             run.max_rss_bytes, after.peak_bytes,
             larger(grown(run.before.io_bytes, after.io_bytes), run.processes.io_bytes),
             grown(run.before.network_bytes, after.network_bytes), run.kept, run.dropped,
             grown(run.before.oom_kills, after.oom_kills), run.reason == HALTED,
             run.reason == TIMED_OUT, run.reason == STOPPED, run.words);
}

/* Removes all that the message has left. Its processes ended with process 1. */
static void wait_again(void)
{
    if (sandbox.on)
        sandbox_remove();
    memcpy(last_line, status_line, sizeof last_line);
    close(run.output_file);
    close(run.report_file);
    bool network_unused = run.network_unused;
    memset(&run, 0, sizeof run);
    run.output_pipe = run.failure_pipe = run.network = -1;
    if (!network_unused || !network_is_fixed())
        network_drop();
    if (sandbox.on)
        prepare_next();
    state = WAITING;
    snprintf(status_line, sizeof status_line, "waiting\n");
    wire_broadcast(status_line, network_descriptor());
}

/* Kills all other processes after the report. If the engine stops the container, exits at once. */
static void end_others(void)
{
    if (many_requests && run.reason != STOPPED)
        wait_again();
    else if (!container.entered || run.reason == STOPPED)
        leave();
    else
        kill(-1, SIGKILL);
}

/* If the report can neither be written nor sent, it is sent to the next connection. That of one of many
 * requests is in the greeting until the next has ended. */
static void finish(void)
{
    if (run.failure_pipe >= 0)
        read_failure();
    drain_output();
    if (run.first_output > run.ended) /* the output was read after the end */
        run.first_output = run.ended;
    close_pipe(&run.output_pipe);
    compose_report();
    state = ENDED;
    run.deadline = 0;
    size_t length = strlen(status_line);
    bool written = !run.refused && write(run.report_file, status_line, length) == (ssize_t)length;
    if (wire_broadcast(status_line, -1) > 0 || written || many_requests)
        end_others();
}

/* ---- the main loop */

/* Whether it is the id of the request that runs. */
static bool names(const char *id)
{
    size_t length = strlen(id);
    return !strncmp(run.id, id, length) && run.id[length] == ' ';
}

static void halt(const char *id)
{
    if (many_requests && (state == WAITING || !names(id)))
        return; /* it has ended, and its report is sent */
    if (state == WAITING)
        leave();
    if (run.reason == BY_ITSELF || run.reason == STOPPED)
        stop(HALTED);
}

/* A worker that sends a request twice, since it lost its connection, does not run it twice. */
static bool has_run(const char *id)
{
    static const char report[] = "report ";
    size_t head = sizeof report - 1, length = strlen(id);
    return !strncmp(last_line, report, head) && !strncmp(last_line + head, id, length) &&
           last_line[head + length] == ' ';
}

static void refuse(size_t connection, const char *id, const char *why)
{
    char line[LINE_BYTES];
    if (*id)
        snprintf(line, sizeof line, "refused %s %s\n", id, why);
    else
        snprintf(line, sizeof line, "error %s\n", why);
    wire_send(connection, line, -1);
}

static void accept_request(size_t connection, struct command *command)
{
    struct request request;
    struct sandbox_request sandboxed = {.id = ""};
    const char *why = "malformed request";
    bool parsed = command->in_sandbox == many_requests &&
                  (!many_requests || sandbox_parse(&command->body, &command->length, &sandboxed));
    char *body = command->body;
    size_t length = command->length;
    if (parsed && sandboxed.limits.flags & CONNECTED_NETWORK)
        parsed = network_descriptor() >= 0 && sandbox_skip_hosts(&body, &length);
    parsed = parsed && request_parse(body, length, &request, &why);
    if (parsed && state != WAITING)
        why = many_requests ? "another request runs" : "it is too late for a request";
    else if (parsed && has_run(sandboxed.id))
        why = "it has run";
    else if (parsed)
        return start(&request, &sandboxed, command);
    refuse(connection, sandboxed.id, why);
    close(command->output);
    close(command->report);
}

static void execute(size_t connection, struct command *command)
{
    if (command->verb == RUN)
        accept_request(connection, command);
    else if (command->verb == HALT)
        halt(command->id);
    else if (command->verb == LEAVE && (state == WAITING || state == ENDED))
        leave();
    else if (command->verb == LEAVE)
        wire_send(connection, "error it still runs\n", -1);
}

/* A client reads it as the lines of an earlier connection that it has lost. */
static const char *greeting(void)
{
    static char lines[2 * LINE_BYTES];
    snprintf(lines, sizeof lines, "%s%s", last_line, status_line);
    return lines;
}

enum { SIGNALS, LISTENER, OUTPUT, FAILURE, FIRST_CONNECTION, POLLED = FIRST_CONNECTION + CONNECTIONS };

/* The timeout of poll in milliseconds, rounded up: an early timeout would poll again. */
static int poll_timeout(void)
{
    if (!run.deadline)
        return -1;
    uint64_t left = grown(now(CLOCK_MONOTONIC), run.deadline);
    uint64_t milliseconds = (left + MILLISECOND - 1) / MILLISECOND;
    return milliseconds < INT32_MAX ? (int)milliseconds : INT32_MAX;
}

static void poll_once(int signals, int listener)
{
    struct pollfd polled[POLLED] = {
        [SIGNALS] = {signals, POLLIN, 0},
        [LISTENER] = {listener, POLLIN, 0},
        [OUTPUT] = {run.output_pipe, POLLIN, 0},
        [FAILURE] = {run.failure_pipe, POLLIN, 0},
    };
    for (size_t i = 0; i < CONNECTIONS; i++)
        polled[FIRST_CONNECTION + i] = (struct pollfd){wire_descriptor(i), POLLIN, 0};
    if (poll(polled, POLLED, poll_timeout()) < 0)
        return;

    if (polled[FAILURE].revents)
        read_failure();
    for (int i = 0; polled[OUTPUT].revents && i < MAX_READS_IN_A_ROW; i++)
        if (!read_output(READ_BYTES))
            break;
    if (polled[SIGNALS].revents)
        take_signals(signals);
    reap();
    if (run.ended && state != ENDED)
        finish();
    check_deadline();
    bool all_read = true;
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (polled[FIRST_CONNECTION + i].revents && wire_descriptor(i) >= 0) {
            struct command command = wire_read(i);
            execute(i, &command);
            all_read = false;
        }
    /* A request that a worker has sent before it ended is in the greeting of the next one. */
    if (all_read && polled[LISTENER].revents && wire_accept(listener, greeting(), state == WAITING ? network_descriptor() : -1) &&
        state == ENDED)
        end_others();
}

/* Receives all signals through a descriptor; their dispositions do not change. */
static int catch_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        perror("signalfd");
        exit(EXIT_FAILURE);
    }
    return signals;
}

_Noreturn void launcher_run(int listener)
{
    int signals = catch_signals();
    many_requests |= sandbox.on;
    if (sandbox.on)
        prepare_next();
    for (;;)
        poll_once(signals, listener);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "pause"))
        pause_run();
    if (argc == 3 && !strcmp(argv[1], "helper"))
        helper_run(argv);
    many_requests = argc == 3 && !strcmp(argv[2], "again");
    if (argc != 2 && !many_requests) {
        fprintf(stderr, "usage: launcher pause | helper <folder> | <socket> [again]\n");
        return EXIT_FAILURE;
    }
    prctl(PR_SET_DUMPABLE, 0); /* the program must not read this process' memory */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    launcher_run(wire_listen(argv[1]));
}
