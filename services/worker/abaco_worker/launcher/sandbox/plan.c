/*
 * What the mounts of a sandbox will be, from those of the container: the engine has made them, so its
 * masks, read-only paths, options and sizes are copied whatever they are. Nothing writable is shared
 * with the container, for the next message would read it: a writable file system is made anew, a file
 * is copied, a volume gets an overlay.
 *
 * The paths come from the kernel's list and have no symbolic links, whatever links the image has.
 */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TEXT_BYTES (256 * 1024)
#define FOLDERS_DEEP 4

struct plan plan;
static char text[TEXT_BYTES];
static int image = -1; /* the container's root */

static bool refuse(char words[WORDS_BYTES], const char *what, const char *path)
{
    snprintf(words, WORDS_BYTES, "%s: %s", what, path);
    return false;
}

/* ---- one line of the list */

static const struct {
    const char *name;
    unsigned int attribute;
} known[] = {
    {"ro", ATTRIBUTE_RDONLY},   {"nosuid", ATTRIBUTE_NOSUID},   {"nodev", ATTRIBUTE_NODEV},
    {"noexec", ATTRIBUTE_NOEXEC}, {"noatime", ATTRIBUTE_NOATIME},
    {"nodiratime", ATTRIBUTE_NODIRATIME},
};

static bool has_option(const char *options, const char *wanted)
{
    size_t length = strlen(wanted);
    for (const char *at = options; (at = strstr(at, wanted)); at += length)
        if ((at == options || at[-1] == ',') && (!at[length] || at[length] == ','))
            return true;
    return false;
}

static unsigned int attributes_of(const char *options)
{
    unsigned int attributes = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (has_option(options, known[i].name))
            attributes |= known[i].attribute;
    if (!has_option(options, "relatime") && !(attributes & ATTRIBUTE_NOATIME))
        attributes |= ATTRIBUTE_STRICTATIME;
    return attributes;
}

/* Spaces and the like are written as octal numbers. */
static void unescape(char *path)
{
    char *to = path;
    for (const char *from = path; *from; to++) {
        if (*from == '\\' && from[1] && from[2] && from[3]) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static int open_in_image(const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned long long)(flags | O_CLOEXEC),
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_IN_ROOT,
    };
    return (int)syscall(CALL_OPENAT2, image, path, &how, sizeof how);
}

/* ---- what is in a tmpfs */

static bool add_nodes(int directory, const char *prefix, dev_t device, int depth,
                      char words[WORDS_BYTES]);

static bool add_node(int directory, const char *name, const char *prefix, dev_t device, int depth,
                     char words[WORDS_BYTES])
{
    struct stat status;
    if (plan.nodes == NODES || fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW))
        return refuse(words, "cannot copy a file of a tmpfs", name);
    struct node *node = &plan.node[plan.nodes++];
    bool mounted = status.st_dev != device; /* something else covers it */
    *node = (struct node){.mode = mounted ? S_IFDIR | 0755 : status.st_mode,
                          .device = status.st_rdev,
                          .uid = status.st_uid,
                          .gid = status.st_gid};
    if (mounted && !S_ISDIR(status.st_mode))
        node->mode = S_IFREG;
    size_t length = (size_t)snprintf(node->path, sizeof node->path, "%s%s", prefix, name);
    bool linked = S_ISLNK(status.st_mode) && !mounted;
    ssize_t target = linked ? readlinkat(directory, name, node->link, sizeof node->link) : 0;
    if (length >= sizeof node->path || target < 0 || (size_t)target >= sizeof node->link ||
        (S_ISREG(node->mode) && !mounted && status.st_size))
        return refuse(words, "cannot copy a file of a tmpfs", name);
    if (mounted || !S_ISDIR(status.st_mode))
        return true;
    char inner[sizeof node->path + 1];
    snprintf(inner, sizeof inner, "%s/", node->path);
    int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return below >= 0 && depth < FOLDERS_DEEP
               ? add_nodes(below, inner, device, depth + 1, words)
               : refuse(words, "cannot copy a directory of a tmpfs", name);
}

static bool add_nodes(int directory, const char *prefix, dev_t device, int depth,
                      char words[WORDS_BYTES])
{
    DIR *entries = fdopendir(directory);
    bool added = entries != NULL;
    for (struct dirent *entry; added && (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            added = add_node(dirfd(entries), entry->d_name, prefix, device, depth, words);
    if (entries)
        closedir(entries);
    return added;
}

static bool learn_tmpfs(struct step *step, char words[WORDS_BYTES])
{
    struct stat status;
    int directory = open_in_image(step->path, O_RDONLY | O_DIRECTORY);
    if (directory < 0 || fstat(directory, &status))
        return refuse(words, "cannot read the mount", step->path);
    step->first_node = plan.nodes;
    if (status.st_dev != step->device) { /* covered by a later mount: nothing of it is seen */
        close(directory);
        return true;
    }
    bool learnt = add_nodes(directory, "", step->device, 0, words);
    step->nodes = plan.nodes - step->first_node;
    return learnt;
}

/* ---- what kind it is */

/* Where a tmpfs is that the sandbox has of its own; NULL is nowhere. */
static const struct step *fresh_of(dev_t device)
{
    for (size_t i = 0; i < plan.steps; i++)
        if (plan.step[i].kind == FRESH && plan.step[i].device == device)
            return &plan.step[i];
    return NULL;
}

static bool learn_kind(struct step *step, const char *root, char words[WORDS_BYTES])
{
    bool whole = !strcmp(root, "/"), is_tmpfs = !strcmp(step->type, "tmpfs");
    bool read_only = step->attributes & ATTRIBUTE_RDONLY || has_option(step->options, "ro");
    const struct step *holder = is_tmpfs ? fresh_of(step->device) : NULL;
    struct stat status;
    int place = open_in_image(step->path, O_PATH);
    if (place < 0 || fstat(place, &status))
        return refuse(words, "cannot read the mount", step->path);
    if (S_ISREG(status.st_mode))
        step->original = place;
    else
        close(place);
    if (!strncmp(step->type, "cgroup", 6))
        step->kind = GROUP;
    else if (!strcmp(step->type, "proc") && !whole)
        step->kind = COVERED;
    else if (!strcmp(step->type, "proc") || !strcmp(step->type, "sysfs") ||
             !strcmp(step->type, "devpts") || !strcmp(step->type, "mqueue"))
        step->kind = FRESH;
    else if (holder && !whole) {
        step->kind = PART;
        if ((size_t)snprintf(step->part, PATH_BYTES, "%s%s", holder->path, root) >= PATH_BYTES)
            return refuse(words, "its path is too long", step->path);
    } else if (is_tmpfs && whole && !read_only)
        step->kind = FRESH;
    else if ((is_tmpfs && read_only) || S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))
        step->kind = MASK;
    else if (S_ISREG(status.st_mode))
        step->kind = COPY;
    else if (S_ISDIR(status.st_mode) && !strpbrk(step->path, ",:\\"))
        step->kind = VOLUME;
    else
        return refuse(words, "it has a mount that cannot be copied", step->path);
    return step->kind != FRESH || !is_tmpfs || learn_tmpfs(step, words);
}

/* SELinux labels a container's files by an option of their mounts. */
static void learn_context(const char *options)
{
    const char *context = strstr(options, "context=");
    size_t length = context ? strcspn(context, "\"") : 0;
    if (context && context[length] == '"')
        length += 1 + strcspn(context + length + 1, "\"") + 1;
    else if (context)
        length = strcspn(context, ",");
    snprintf(plan.root_context, sizeof plan.root_context, "%.*s", (int)length, context ? context : "");
}

static bool learn_mount(char *line, char words[WORDS_BYTES])
{
    char root[PATH_BYTES], options[256], super[TEXT_BYTES / 16] = "";
    unsigned int major, minor;
    const char *tail = strstr(line, " - ");
    if (plan.steps == STEPS)
        return refuse(words, "it has too many mounts", "");
    struct step *step = &plan.step[plan.steps];
    *step = (struct step){.made = -1, .original = -1};
    if (!tail || sscanf(line, "%*d %*d %u:%u %255s %255s %255s", &major, &minor, root, step->path,
                        options) != 5 ||
        sscanf(tail, " - %31s %63s %16383s", step->type, step->source, super) < 2)
        return refuse(words, "cannot read its mounts", line);
    unescape(step->path);
    unescape(root);
    step->attributes = attributes_of(options);
    step->device = makedev(major, minor);
    if (!strcmp(step->path, "/")) {
        plan.root_attributes = step->attributes;
        learn_context(super);
        return true;
    }
    if (strlen(super) >= sizeof step->options) /* of an overlay, which is not made again */
        *super = '\0';
    snprintf(step->options, sizeof step->options, "%.*s", (int)sizeof step->options - 1, super);
    if (!learn_kind(step, root, words))
        return false;
    plan.steps++;
    return true;
}

static struct timespec change_of(const struct step *step)
{
    struct stat status = {0};
    if (step->original >= 0 && fstat(step->original, &status))
        status = (struct stat){0};
    return status.st_ctim;
}

void plan_remember(void)
{
    for (size_t i = 0; i < plan.steps; i++)
        plan.step[i].changed = change_of(&plan.step[i]);
}

bool plan_is_stale(void)
{
    for (size_t i = 0; i < plan.steps; i++) {
        const struct timespec now = change_of(&plan.step[i]), then = plan.step[i].changed;
        if (now.tv_sec != then.tv_sec || now.tv_nsec != then.tv_nsec)
            return true;
    }
    return false;
}

bool plan_mounts(char words[WORDS_BYTES])
{
    int file = openat(container.process, "mountinfo", O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    for (ssize_t got = 1; file >= 0 && got > 0 && length < sizeof text - 1; length += (size_t)got)
        if ((got = read(file, text + length, sizeof text - 1 - length)) <= 0)
            break;
    if (file >= 0)
        close(file);
    text[length] = '\0';
    image = openat(container.process, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (!length || image < 0)
        return sandbox_failure(words, "the container's mounts");
    bool planned = true;
    char *rest = text;
    for (char *line; planned && (line = strsep(&rest, "\n"));)
        planned = !*line || learn_mount(line, words);
    close(image);
    return planned;
}
