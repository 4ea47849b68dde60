/* What a program in a sandbox tries, one attempt for each name; see test_sandbox_attacks.py. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#define KEY 4711

static int result(const char *what, long value)
{
    printf("%s %s\n", what, value < 0 ? strerror(errno) : "done");
    return 0;
}

static int leave_ipc(void)
{
    result("shm", shmget(KEY, 4096, IPC_CREAT | 0666));
    result("sem", semget(KEY, 1, IPC_CREAT | 0666));
    return result("msg", msgget(KEY, IPC_CREAT | 0666));
}

static int find_ipc(void)
{
    result("shm", shmget(KEY, 0, 0));
    result("sem", semget(KEY, 0, 0));
    return result("msg", msgget(KEY, 0));
}

static int abstract_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0left-behind"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 12) ||
        listen(listener, 1))
        return result("bind", -1);
    if (fork())
        return result("bind", 0);
    setsid();
    sleep(60);
    return 0;
}

/* Out of the root by the oldest way: a directory outside of the new root stays open. */
static int leave_root(void)
{
    struct stat before, after;
    stat("/", &before);
    mkdir("/below", 0755);
    result("chroot", chroot("/below"));
    for (int i = 0; i < 64; i++)
        if (chdir(".."))
            break;
    result("chroot", chroot("."));
    stat("/", &after);
    puts(before.st_dev == after.st_dev && before.st_ino == after.st_ino ? "the same root"
                                                                        : "another root");
    return 0;
}

static int connect_to_itself(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), caller = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &size) ||
        connect(caller, (struct sockaddr *)&address, size))
        return result("connect", -1);
    int accepted = accept(listener, NULL, NULL);
    close(caller); /* who closes first keeps the connection in TIME_WAIT */
    char byte;
    result("closed", read(accepted, &byte, 1));
    close(accepted);
    return 0;
}

static int key(int add)
{
    if (add)
        return result("key", syscall(SYS_add_key, "user", "left-behind", "x", 1, -3));
    return result("key", syscall(SYS_keyctl, 10, -3, "user", "left-behind", 0));
}

static long long used_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * 1000000000LL + used.tv_nsec;
}

/* This process has made its own sandbox before: that is in its account, and not in its group's. */
static int spin(long milliseconds)
{
    long long began = used_ns();
    while (used_ns() - began < milliseconds * 1000000LL)
        ;
    return 0;
}

static int touch_memory(long mebibytes)
{
    char *memory = malloc((size_t)mebibytes << 20);
    for (long i = 0; memory && i < mebibytes << 20; i += 4096)
        memory[i] = 1;
    puts("touched");
    return memory ? 0 : 1;
}

static int bomb(void)
{
    int made = 0;
    for (pid_t child; made < 1000 && (child = fork()) >= 0; made++)
        if (child == 0)
            pause();
    printf("forks %d: %s\n", made, strerror(errno));
    return 0;
}

static void try_call(int number)
{
    int ends[2], status;
    char answer[128] = "";
    if (pipe(ends))
        exit(1);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(1);
        pid_t me = (pid_t)syscall(SYS_getpid);
        long got = syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
        int error = got == -1 ? errno : 0;
        if ((pid_t)syscall(SYS_getpid) != me)
            _exit(0); /* number made a process */
        dprintf(ends[1], "%s", error ? strerror(error) : "done");
        _exit(0);
    }
    close(ends[1]);
    waitpid(child, &status, 0);
    ssize_t got = read(ends[0], answer, sizeof answer - 1);
    close(ends[0]);
    answer[got > 0 ? got : 0] = '\0';
    printf("%d %s%s\n", number, answer, WIFSIGNALED(status) ? " (killed)" : "");
}

/* Every system call, with arguments that no call takes; those that end or hold up the machine's disks
 * are left out. */
static int calls(void)
{
    for (int number = 0; number < 520; number++)
        if (number != SYS_sync && number != SYS_reboot)
            try_call(number);
    return 0;
}

/* As chattr does. */
static int protect(const char *path)
{
    int flags, file = open(path, O_RDONLY);
    bool known = file >= 0 && !ioctl(file, FS_IOC_GETFLAGS, &flags);
    flags |= FS_IMMUTABLE_FL;
    return result("protect", known ? ioctl(file, FS_IOC_SETFLAGS, &flags) : -1);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    if (!strcmp(name, "leave-ipc")) return leave_ipc();
    if (!strcmp(name, "find-ipc")) return find_ipc();
    if (!strcmp(name, "abstract-socket")) return abstract_socket();
    if (!strcmp(name, "leave-root")) return leave_root();
    if (!strcmp(name, "connect")) return connect_to_itself();
    if (!strcmp(name, "add-key")) return key(1);
    if (!strcmp(name, "find-key")) return key(0);
    if (!strcmp(name, "spin")) return spin(number);
    if (!strcmp(name, "touch")) return touch_memory(number);
    if (!strcmp(name, "bomb")) return bomb();
    if (!strcmp(name, "calls")) return calls();
    if (!strcmp(name, "in-session")) { /* starts a program that has a keyring to lose */
        syscall(SYS_keyctl, 1, "abaco-test");
        execv(argv[2], argv + 2);
    }
    if (!strcmp(name, "immutable")) return protect(argv[2]);
    if (!strcmp(name, "euid")) return !printf("%u\n", geteuid());
    if (!strcmp(name, "call")) return result("call", syscall(number, 0, 0, 0, 0, 0, 0));
    fprintf(stderr, "unknown: %s\n", name);
    return 2;
}
