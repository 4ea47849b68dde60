/*
 * The file system of a sandbox, made by the child that becomes the program. It begins in the
 * launcher's mounts (the machine's) and ends in a tree of its own that nothing else is in.
 */
#include "sandbox.h"

#include <errno.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define COPY_BYTES (256 * 1024)
#define COPIES "/proc/files" /* while the layer covers /proc */
#define COPIES_OPTIONS "size=4m,mode=755"

struct attributes { /* the kernel's struct mount_attr */
    uint64_t set, clear, propagation, user_namespace;
};

static int old_root = -1, new_root = -1;
static int hosts = -1;

int root_hosts(void)
{
    return hosts;
}

/* ---- small parts */

/* Keeps the error that is to be reported. */
static void shut(int descriptor)
{
    int error = errno;
    if (descriptor >= 0)
        close(descriptor);
    errno = error;
}

/* No name on the way may be a link: an image could lead a mount anywhere. */
static int open_below(int root, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned long long)(flags | O_CLOEXEC),
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_IN_ROOT,
    };
    return (int)syscall(CALL_OPENAT2, root, path, &how, sizeof how);
}

static int copy_mount(int directory, const char *path)
{
    return (int)syscall(CALL_OPEN_TREE, directory, path, TREE_CLONE | TREE_CLOEXEC | AT_EMPTY_PATH);
}

/* A copy belongs to the same peer group as its original: where the machine's mounts are shared, as
 * systemd makes them, what is mounted on the copy would appear on the machine. So it is made private. */
static bool set_attributes(int mount, unsigned int attributes)
{
    struct attributes change = {
        .set = attributes,
        .clear = ATTRIBUTE_ATIME,
        .propagation = MS_PRIVATE,
    };
    return !syscall(CALL_MOUNT_SETATTR, mount, "", AT_EMPTY_PATH, &change, sizeof change);
}

static bool put(int mount, int place)
{
    return !syscall(CALL_MOVE_MOUNT, mount, "", place, "", FROM_DESCRIPTOR | TO_DESCRIPTOR);
}

/* The next of several options. A comma between quotes, as in SELinux' categories, separates nothing. */
static char *next_option(char **rest)
{
    char *option = *rest;
    if (!option)
        return NULL;
    bool quoted = false;
    char *end = option;
    for (; *end && (quoted || *end != ','); end++)
        quoted ^= *end == '"';
    *rest = *end ? end + 1 : NULL;
    *end = '\0';
    return option;
}

/* "rw,size=65536k,mode=755" */
static bool configure(int context, const char *options)
{
    char copy[OPTION_BYTES];
    snprintf(copy, sizeof copy, "%s", options);
    char *rest = copy;
    for (char *option; (option = next_option(&rest));) {
        char *value = strchr(option, '=');
        if (!*option || !strcmp(option, "rw") || !strcmp(option, "seclabel"))
            continue;
        if (value)
            *value++ = '\0';
        if (value && *value == '"') {
            value++;
            value[strcspn(value, "\"")] = '\0';
        }
        if (syscall(CALL_FSCONFIG, context, value ? CONFIG_STRING : CONFIG_FLAG, option, value, 0))
            return false;
    }
    return true;
}

static int new_file_system(const struct step *step)
{
    int context = (int)syscall(CALL_FSOPEN, step->type, 1);
    if (context < 0)
        return -1;
    int made = -1;
    if (!syscall(CALL_FSCONFIG, context, CONFIG_STRING, "source", step->source, 0) &&
        configure(context, step->options) &&
        !syscall(CALL_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0))
        made = (int)syscall(CALL_FSMOUNT, context, 1, step->attributes);
    shut(context);
    return made;
}

/* ---- before the child leaves the launcher's mounts */

/* A group's directory is found from the launcher's side only; the container shows its own. */
static bool copy_groups(char words[WORDS_BYTES])
{
    for (size_t i = 0; i < plan.steps; i++) {
        struct step *step = &plan.step[i];
        int group = step->kind == GROUP ? groups_directory(step->device) : -1;
        if (group < 0)
            continue;
        step->made = copy_mount(group, "");
        if (step->made < 0 || !set_attributes(step->made, step->attributes))
            return sandbox_failure(words, step->path);
    }
    return true;
}

/* ---- in a copy of the container's mounts */

/* The new layer begins as the container's own directory. */
static bool take_owner(const char *from, const char *upper)
{
    struct stat status;
    return !stat(from, &status) && !chown(upper, status.st_uid, status.st_gid) &&
           !chmod(upper, status.st_mode & 07777);
}

static bool write_text(char *into, size_t size, const char *lower, const char *folder,
                       const char *more)
{
    /* What is written is thrown away: "volatile" spares the disk a sync when the overlay goes. Never
     * "userxattr": programs could write the marks that an overlay reads. */
    return (size_t)snprintf(into, size, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile%s%s",
                            lower, folder, folder, *more ? "," : "", more) < size;
}

static bool make_root(char words[WORDS_BYTES])
{
    static char options[OPTION_BYTES * 2];
    if (!take_owner("/", "/proc/upper") ||
        !write_text(options, sizeof options, "/", "/proc", plan.root_context) ||
        mount("overlay", "/proc/root", "overlay", 0, options))
        return sandbox_failure(words, "the overlay");
    new_root = open("/proc/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (new_root < 0 || !set_attributes(new_root, plan.root_attributes))
        return sandbox_failure(words, "the root");
    return true;
}

/* The content is the container's, which the engine may have changed; the file is the message's own: a
 * line that one message writes into /etc/hosts is not read by the next. */
static bool copy_file(struct step *step, const char *place)
{
    static char data[COPY_BYTES];
    struct stat status;
    int from = open_below(old_root, step->path, O_RDONLY);
    int to = open(place, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    bool copied = from >= 0 && to >= 0 && !fstat(from, &status);
    ssize_t length = copied ? read(from, data, sizeof data) : -1;
    copied = length >= 0 && length < (ssize_t)sizeof data && /* a larger one is refused */
             write(to, data, (size_t)length) == length && !fchown(to, status.st_uid, status.st_gid) &&
             !fchmod(to, status.st_mode & 07777);
    shut(from);
    if (copied && sandbox.network == CONNECTED_NETWORK && !strcmp(strrchr(step->path, '/'), "/hosts"))
        hosts = to;
    else
        shut(to);
    return copied;
}

/* On a tmpfs, because making files on a disk takes longer. */
static bool make_copies(char words[WORDS_BYTES])
{
    struct step place = {.type = "tmpfs", .source = "tmpfs", .options = COPIES_OPTIONS};
    int made = new_file_system(&place);
    int directory = made < 0 ? -1 : open(COPIES, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool done = directory >= 0 && put(made, directory);
    shut(made);
    shut(directory);
    return done || sandbox_failure(words, "the copies of files");
}

static bool prepare_step(struct step *step, size_t number, char words[WORDS_BYTES])
{
    char place[PATH_BYTES + 16], upper[sizeof place + 8], options[OPTION_BYTES * 2];
    snprintf(place, sizeof place, "/proc/%zu", number);
    snprintf(upper, sizeof upper, "%s/upper", place);
    if (step->kind == COPY) {
        snprintf(place, sizeof place, COPIES "/%zu", number); /* two may have the same name */
        if (copy_file(step, place))
            step->made = copy_mount(AT_FDCWD, place);
    } else if (step->kind == VOLUME) {
        if (take_owner(step->path, upper) &&
            write_text(options, sizeof options, step->path, place, plan.root_context) &&
            !mount("overlay", place, "overlay", 0, options))
            step->made = copy_mount(AT_FDCWD, place);
    } else if (step->kind != MASK && step->kind != GROUP) {
        return true;
    }
    return (step->made >= 0 && set_attributes(step->made, step->attributes)) ||
           sandbox_failure(words, step->path);
}

/* Before the container's /proc is covered. */
static bool copy_masks(char words[WORDS_BYTES])
{
    for (size_t i = 0; i < plan.steps; i++) {
        struct step *step = &plan.step[i];
        if (step->kind != MASK && (step->kind != GROUP || step->made >= 0))
            continue;
        int from = open_below(old_root, step->path, O_PATH);
        step->made = from < 0 ? -1 : copy_mount(from, "");
        shut(from);
        if (step->made < 0)
            return sandbox_failure(words, step->path);
    }
    return true;
}

/* The container's root stays reachable by its descriptor until it is detached. */
static bool change_root(char words[WORDS_BYTES])
{
    if (fchdir(new_root) || syscall(SYS_pivot_root, ".", "."))
        return sandbox_failure(words, "pivot_root");
    return true;
}

static bool detach_old_root(char words[WORDS_BYTES])
{
    if (fchdir(old_root) || umount2(".", MNT_DETACH) || chdir("/"))
        return sandbox_failure(words, "the old root");
    return true;
}

/* ---- in the new root */

static bool make_node(int directory, const struct node *node)
{
    bool made = S_ISLNK(node->mode)   ? !symlinkat(node->link, directory, node->path)
                : S_ISDIR(node->mode) ? !mkdirat(directory, node->path, node->mode & 07777)
                                      : !mknodat(directory, node->path, node->mode, node->device);
    return made && ((!node->uid && !node->gid) ||
                    !fchownat(directory, node->path, node->uid, node->gid, AT_SYMLINK_NOFOLLOW));
}

static bool make_step(struct step *step)
{
    if (step->kind == FRESH) {
        step->made = new_file_system(step);
        /* Before the engine's read-only cover of /proc/sys is put over it. */
        if (sandbox.network == OWN_NETWORK && !strcmp(step->type, "proc") && !network_set(step->made))
            return false;
        for (size_t i = 0; i < step->nodes && step->made >= 0; i++)
            if (!make_node(step->made, &plan.node[step->first_node + i]))
                return false;
    } else if (step->kind == COVERED || step->kind == PART) {
        int from = open_below(new_root, step->kind == PART ? step->part : step->path, O_PATH);
        if (from < 0)
            return false;
        step->made = copy_mount(from, "");
        shut(from);
        if (step->made >= 0 && !set_attributes(step->made, step->attributes))
            return false;
    }
    return step->made >= 0;
}

static bool mount_steps(char words[WORDS_BYTES])
{
    for (size_t i = 0; i < plan.steps; i++) {
        struct step *step = &plan.step[i];
        int place = open_below(new_root, step->path, O_PATH);
        if (place < 0 || !make_step(step) || !put(step->made, place))
            return sandbox_failure(words, step->path);
        shut(place);
        shut(step->made);
    }
    return true;
}

bool root_build(char words[WORDS_BYTES])
{
    umask(0);
    int layer = copy_mount(layer_directory(), "");
    if (layer < 0 || !set_attributes(layer, 0))
        return sandbox_failure(words, "the directory of a message");
    if (!copy_groups(words))
        return false;
    /* A copy of the container's mounts: no step of ours reaches the container, and nothing that is
     * mounted there later reaches the program. */
    if (setns(container.mounts, CLONE_NEWNS) || unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return sandbox_failure(words, "the container's mounts");
    old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int proc = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* On the old /proc, which goes with the old root: the program cannot reach its own layer. */
    if (old_root >= 0 && !copy_masks(words))
        return false;
    if (old_root < 0 || proc < 0 || !put(layer, proc))
        return sandbox_failure(words, "the directory of a message");
    shut(layer);
    shut(proc);
    if (!make_root(words) || !make_copies(words))
        return false;
    for (size_t i = 0; i < plan.steps; i++)
        if (!prepare_step(&plan.step[i], i, words))
            return false;
    /* Not chroot, which can be left; and before any path of the image is used. */
    return change_root(words) && mount_steps(words) && detach_old_root(words);
}
