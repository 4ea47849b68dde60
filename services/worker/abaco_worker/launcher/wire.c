/*
 * The connections. A client sends commands, each with a header of eight bytes and a body:
 *
 *   "RUN1"  length   a request (request.c), and with the header the descriptors of two files, for the
 *                    output and for the report
 *   "RUN2"  length   the same to a launcher of many requests; the id and the sandbox's own fields come
 *                    first (sandbox/spawn.c)
 *   "HALT"  0        end the run
 *   "HALT"  length   to a launcher of many requests: end the run of the request with this id
 *   "EXIT"  0        end the launcher and with it the container, unless the program runs
 *
 * and receives lines of text (main.c). The length has the host's byte order: both ends are on it.
 *
 * The socket and the files are in a folder of the host that is mounted into no container, and that only
 * its owner may enter.
 */
#include "launcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct head {
    char verb[4];
    uint32_t length;
};

struct connection {
    int socket; /* 0: no connection (0 is a standard stream) */
    int files[2];
    size_t have; /* received bytes of header and body */
    struct head head;
    char id[REQUEST_ID_BYTES + 1]; /* the body of HALT */
};

bool many_requests;
static struct connection connections[CONNECTIONS];
static struct connection *sending; /* the connection whose request fills the buffer */
static char body[REQUEST_BYTES];

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

/* Makes the folder and the socket accessible only to their owner. */
int wire_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        fail(path);
    }
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(path);
    mode_t mask = umask(S_IRWXG | S_IRWXO);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address))
        fail(path);
    umask(mask);
    char *slash = strrchr(address.sun_path, '/');
    if (slash) {
        *slash = '\0';
        if (chmod(address.sun_path, S_IRWXU))
            errno = 0;
    }
    if (listen(listener, CONNECTIONS))
        fail(path);
    return listener;
}

/* Trusts the user that can start launchers. A peer in the container has a pid here, and is refused. */
static bool is_trusted(int socket)
{
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    return !getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == geteuid() &&
           (!container.entered || peer.pid == 0);
}

bool wire_accept(int listener, const char *greeting, int descriptor)
{
    int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) {
        if (errno != EAGAIN) /* no descriptor is free: the next poll returns at once, too */
            nanosleep(&(struct timespec){0, 10 * (long)MILLISECOND}, NULL);
        return false;
    }
    for (size_t i = 0; i < CONNECTIONS && is_trusted(socket); i++)
        if (!connections[i].socket) {
            connections[i] = (struct connection){.socket = socket, .files = {-1, -1}};
            return wire_send(i, greeting, descriptor);
        }
    close(socket);
    return false;
}

int wire_descriptor(size_t index)
{
    return connections[index].socket ? connections[index].socket : -1;
}

static void drop(struct connection *from)
{
    close(from->socket);
    for (size_t i = 0; i < 2; i++)
        if (from->files[i] >= 0)
            close(from->files[i]);
    if (sending == from)
        sending = NULL;
    *from = (struct connection){0};
}

/* A client that does not read gets no half lines: it connects again, and gets the greeting. */
bool wire_send(size_t index, const char *line, int descriptor)
{
    struct connection *to = &connections[index];
    size_t length = strlen(line);
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {(char *)line, length};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (descriptor >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(&control.head), &descriptor, sizeof descriptor);
    }
    bool sent = sendmsg(to->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length;
    if (!sent)
        shutdown(to->socket, SHUT_WR); /* what it has sent is still read */
    return sent;
}

size_t wire_broadcast(const char *line, int descriptor)
{
    size_t reached = 0;
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (connections[i].socket)
            reached += wire_send(i, line, descriptor);
    return reached;
}

static void take_files(struct connection *from, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        int files[2] = {-1, -1};
        size_t size = part->cmsg_len - CMSG_LEN(0);
        memcpy(files, CMSG_DATA(part), size < sizeof files ? size : sizeof files);
        for (size_t i = 0; i < 2; i++) {
            if (from->files[i] >= 0)
                close(from->files[i]);
            from->files[i] = files[i];
        }
    }
}

/* Receives up to `missing` bytes, and files with them; false if there is no data (any more). */
static bool receive(struct connection *from, void *place, size_t missing)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec data = {place, missing};
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof control.space,
    };
    ssize_t got = recvmsg(from->socket, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR))
            drop(from);
        return false;
    }
    take_files(from, &message);
    from->have += (size_t)got;
    return true;
}

static struct command refuse(struct connection *from, const char *line)
{
    wire_send((size_t)(from - connections), line, -1);
    drop(from);
    return (struct command){.verb = NOTHING};
}

static struct command complete(struct connection *from)
{
    struct command command = {
        .verb = RUN,
        .in_sandbox = from->head.verb[3] == '2',
        .body = body,
        .length = from->head.length,
        .output = from->files[0],
        .report = from->files[1],
    };
    from->files[0] = from->files[1] = -1;
    from->have = 0;
    sending = NULL;
    return command;
}

struct command wire_read(size_t index)
{
    struct command nothing = {.verb = NOTHING};
    struct connection *from = &connections[index];
    while (from->have < sizeof from->head)
        if (!receive(from, (char *)&from->head + from->have, sizeof from->head - from->have))
            return nothing;
    size_t length = from->head.length;
    bool halt = !memcmp(from->head.verb, "HALT", 4);
    if (halt ? (many_requests ? length > 0 && length <= REQUEST_ID_BYTES : length == 0)
             : !memcmp(from->head.verb, "EXIT", 4) && length == 0) {
        while (from->have < sizeof from->head + length) {
            size_t have = from->have - sizeof from->head;
            if (!receive(from, from->id + have, length - have))
                return nothing;
        }
        from->id[length] = '\0';
        from->have = 0;
        return (struct command){.verb = halt ? HALT : LEAVE, .id = from->id};
    }
    bool run = !memcmp(from->head.verb, "RUN1", 4) || !memcmp(from->head.verb, "RUN2", 4);
    if (!run || length > sizeof body)
        return refuse(from, "error malformed command\n");
    if (from->files[0] < 0 || from->files[1] < 0)
        return refuse(from, "error no files came with the request\n");
    if (sending && sending != from)
        return refuse(from, "error another request is on its way\n");
    sending = from;
    while (from->have < sizeof from->head + length) {
        size_t have = from->have - sizeof from->head;
        if (!receive(from, body + have, length - have))
            return nothing;
    }
    return complete(from);
}
