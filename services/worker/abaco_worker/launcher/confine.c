/*
 * Confines a new process of the launcher as the container is: the steps of runc, in runc's order. The
 * process is the first one of its own PID namespace. It gets the container's mounts, a /proc that
 * shows only its own processes, and the confinement of the container's process 1.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

static bool failed(char words[WORDS_BYTES], const char *what)
{
    snprintf(words, WORDS_BYTES, "cannot confine the program: %s: %s", what, strerror(errno));
    return false;
}

/* ---- mounts */

static unsigned int mount_attributes(unsigned long flags)
{
    return (flags & MS_RDONLY ? 1u : 0) | (flags & MS_NOSUID ? 2u : 0) |
           (flags & MS_NODEV ? 4u : 0) | (flags & MS_NOEXEC ? 8u : 0);
}

/* Makes a /proc of the new PID namespace that is not mounted anywhere yet. */
static int fresh_proc(void)
{
    int context = (int)syscall(CALL_FSOPEN, "proc", 1);
    if (context < 0)
        return -1;
    int made = -1;
    if (!syscall(CALL_FSCONFIG, context, CONFIG_STRING, "source", "proc", 0) &&
        !syscall(CALL_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0))
        made = (int)syscall(CALL_FSMOUNT, context, 1, mount_attributes(container.proc_flags));
    close(context);
    return made;
}

/* Uses no path that the image controls: it could be a link to the host. */
static bool replace_proc(char words[WORDS_BYTES])
{
    int covers[COVERS];
    for (size_t i = 0; i < container.covers; i++) {
        const struct cover *cover = &container.cover[i];
        covers[i] = -1;
        if (cover->hides) {
            covers[i] = (int)syscall(CALL_OPEN_TREE, AT_FDCWD, cover->path,
                                     TREE_CLONE | TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
            if (covers[i] < 0)
                return failed(words, cover->path);
        }
    }
    int proc = fresh_proc();
    if (proc < 0)
        return failed(words, "a new /proc");
    if (umount2("/proc", MNT_DETACH | UMOUNT_NOFOLLOW))
        return failed(words, "the old /proc");
    int place = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct statfs found;
    if (place < 0 || syscall(CALL_MOVE_MOUNT, proc, "", place, "", FROM_DESCRIPTOR | TO_DESCRIPTOR) ||
        statfs("/proc", &found) || found.f_type != PROC_SUPER_MAGIC)
        return failed(words, "/proc");
    for (size_t i = 0; i < container.covers; i++) {
        const struct cover *cover = &container.cover[i];
        bool done = cover->hides ? !syscall(CALL_MOVE_MOUNT, covers[i], "", AT_FDCWD, cover->path,
                                            FROM_DESCRIPTOR)
                                 : !mount(cover->path, cover->path, NULL, MS_BIND, NULL) &&
                                       !mount(NULL, cover->path, NULL,
                                              MS_REMOUNT | MS_BIND | cover->flags, NULL);
        if (!done)
            return failed(words, cover->path);
    }
    return true;
}

static bool take_mounts(char words[WORDS_BYTES])
{
    if (setns(container.mounts, CLONE_NEWNS) || unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
        return failed(words, "its mounts");
    return replace_proc(words);
}

/* ---- the confinement of process 1 */

static bool write_file(const char *path, const char *what, const char *more)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    char content[sizeof container.label + 8];
    size_t length = (size_t)snprintf(content, sizeof content, "%s%s", what, more);
    bool written = write(file, content, length) == (ssize_t)length;
    close(file);
    return written;
}

/* If a security module has labelled the container, the program gets the label or is not run. */
static bool take_label(char words[WORDS_BYTES])
{
    const char *kind = container.apparmor ? "exec " : "";
    if (!*container.label ||
        (container.apparmor && write_file("/proc/self/attr/apparmor/exec", kind, container.label)) ||
        write_file("/proc/self/attr/exec", kind, container.label))
        return true;
    return failed(words, "its label");
}

static bool take_limits(char words[WORDS_BYTES])
{
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (setrlimit((__rlimit_resource_t)i, &container.limits[i]))
            return failed(words, "its limits");
    umask(container.umask);
    if (!write_file("/proc/self/oom_score_adj", container.oom_score, ""))
        return failed(words, "its score");
    return true;
}

/* Without its own keyring, a program could use the keys of the user that started the worker. */
static bool take_keyring(char words[WORDS_BYTES])
{
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.abaco") < 0 && errno != ENOSYS)
        return failed(words, "a keyring");
    return true;
}

static bool bound_capabilities(char words[WORDS_BYTES])
{
    for (int i = 0; prctl(PR_CAPBSET_READ, i) >= 0; i++)
        if (!(container.capabilities[BOUNDING] >> i & 1) && prctl(PR_CAPBSET_DROP, i))
            return failed(words, "its bounding set");
    return true;
}

static bool loaded; /* a request for a sandbox may set no_new_privs after that */

/* Loads the oldest filter first, as the engine did. */
static bool load_filters(char words[WORDS_BYTES])
{
    for (size_t i = container.filters; i-- > 0;) {
        struct sock_fprog program = {container.filter[i].length,
                                     (struct sock_filter *)container.filter[i].steps};
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
            return failed(words, "its filter of system calls");
    }
    loaded = true;
    return true;
}

const char *confine_hindrance(void)
{
    int context = (int)syscall(CALL_FSOPEN, "proc", 1);
    if (context < 0)
        return errno == ENOSYS ? "the kernel is older than Linux 5.9" : "it may not mount";
    close(context);
    if (syscall(CALL_CLOSE_RANGE, ~0u, ~0u, 0) && errno == ENOSYS)
        return "the kernel is older than Linux 5.9";
    return NULL;
}

bool confine(char words[WORDS_BYTES])
{
    bool entered = sandbox.on ? sandbox_enter(words) : take_mounts(words);
    return entered && take_keyring(words) && take_limits(words) && take_label(words) &&
           bound_capabilities(words) &&
           /* Without no_new_privs, loading needs a capability that is dropped later. */
           (container.no_new_privileges || load_filters(words));
}

/* ---- after the change of user */

static bool set_capabilities(const uint64_t *sets)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    for (size_t i = 0; i < 2; i++)
        data[i] = (struct __user_cap_data_struct){
            .inheritable = (uint32_t)(sets[INHERITABLE] >> 32 * i),
            .permitted = (uint32_t)(sets[PERMITTED] >> 32 * i),
            .effective = (uint32_t)(sets[EFFECTIVE] >> 32 * i),
        };
    return !syscall(SYS_capset, &head, data);
}

/* A user other than root has no capabilities: the change of user has cleared them. */
bool confine_finally(char words[WORDS_BYTES])
{
    uint64_t sets[CAPABILITY_SETS];
    memcpy(sets, container.capabilities, sizeof sets);
    if (geteuid() != 0)
        sets[PERMITTED] = sets[EFFECTIVE] = sets[INHERITABLE] = 0;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) || !set_capabilities(sets))
        return failed(words, "its capabilities");
    if (!container.no_new_privileges)
        return true;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return failed(words, "no_new_privs");
    return loaded || load_filters(words);
}
