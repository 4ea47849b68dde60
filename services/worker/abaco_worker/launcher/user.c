/*
 * Resolves USER of an image as Docker does (runc's libcontainer/user), from the image's /etc/passwd and
 * /etc/group, which may be missing. The C library's functions are not used, because they load libraries
 * that an image need not have.
 */
#include "launcher.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIELDS 7
#define LINE_BYTES (64 * 1024)
#define SPEC_BYTES 512

/* One table is open at a time. */
static struct {
    int descriptor;
    size_t at, end;
    char bytes[4096];
} table;
static char line[LINE_BYTES];

/* Parses an id; like Docker, refuses one above 2^31-1. */
static bool as_id(const char *text, uint32_t *id)
{
    if (text[0] < '0' || text[0] > '9' || strlen(text) > 10)
        return false;
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *id = (uint32_t)value;
    return *end == '\0' && value <= INT32_MAX;
}

/* Only a regular file counts: an image may put a pipe or a device there. */
static void open_table(const char *path)
{
    struct stat status;
    table.at = table.end = 0;
    table.descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (table.descriptor >= 0 && (fstat(table.descriptor, &status) || !S_ISREG(status.st_mode))) {
        close(table.descriptor);
        table.descriptor = -1;
    }
}

static void close_table(void)
{
    if (table.descriptor >= 0)
        close(table.descriptor);
}

static bool next_byte(char *byte)
{
    if (table.at == table.end) {
        ssize_t got = -1;
        if (table.descriptor >= 0)
            got = read(table.descriptor, table.bytes, sizeof table.bytes);
        if (got <= 0)
            return false;
        table.at = 0;
        table.end = (size_t)got;
    }
    *byte = table.bytes[table.at++];
    return true;
}

/* Reads a line; one that is too long is cut off. */
static bool next_line(void)
{
    size_t length = 0;
    char byte = '\0';
    bool any = false;
    while (next_byte(&byte)) {
        any = true;
        if (byte == '\n')
            break;
        if (length < sizeof line - 1)
            line[length++] = byte;
    }
    line[length] = '\0';
    return any;
}

/* Splits the next line at its colons; missing fields are empty. */
static bool next_entry(char *fields[FIELDS])
{
    static char empty[1];
    if (!next_line())
        return false;
    char *rest = line;
    for (size_t i = 0; i < FIELDS; i++) {
        char *field = strsep(&rest, ":");
        fields[i] = field ? field : empty;
    }
    return true;
}

static bool is_listed(char *members, const char *name)
{
    for (char *member; (member = strsep(&members, ","));)
        if (!strcmp(member, name))
            return true;
    return false;
}

/* Sets uid, gid and home, and the user's name in the image, or "" if it has none. */
static bool find_user(const char *wanted, struct account *account, char *name, size_t size)
{
    uint32_t uid = 0, entry_uid, entry_gid;
    bool by_id = wanted[0] == '\0' || as_id(wanted, &uid);
    bool found = false;
    open_table("/etc/passwd");
    char *entry[FIELDS] = {0};
    while (!found && next_entry(entry)) {
        if (!as_id(entry[2], &entry_uid) || !as_id(entry[3], &entry_gid))
            continue;
        found = by_id ? entry_uid == uid : !strcmp(entry[0], wanted);
        if (found) {
            account->uid = entry_uid;
            account->gid = entry_gid;
            snprintf(account->home, sizeof account->home, "%s", entry[5]);
            snprintf(name, size, "%s", entry[0]);
        }
    }
    close_table();
    if (!found && by_id)
        account->uid = uid;
    return found || by_id;
}

static bool find_group(const char *wanted, struct account *account)
{
    uint32_t gid, entry_gid;
    bool by_id = as_id(wanted, &gid);
    bool found = by_id;
    open_table("/etc/group");
    char *entry[FIELDS] = {0};
    while (!found && next_entry(entry))
        if (as_id(entry[2], &entry_gid) && !strcmp(entry[0], wanted)) {
            gid = entry_gid;
            found = true;
        }
    close_table();
    if (found)
        account->gid = gid;
    return found;
}

static void find_memberships(const char *name, struct account *account)
{
    uint32_t gid;
    open_table("/etc/group");
    char *entry[FIELDS] = {0};
    while (account->group_count < GROUPS && next_entry(entry))
        if (as_id(entry[2], &gid) && gid != account->gid && is_listed(entry[3], name))
            account->groups[account->group_count++] = gid;
    close_table();
}

bool account_resolve(const char *spec, struct account *account, char words[WORDS_BYTES])
{
    static char user[SPEC_BYTES], name[SPEC_BYTES];
    snprintf(user, sizeof user, "%s", spec);
    char *group = user;
    strsep(&group, ":");

    *account = (struct account){.home = "/"};
    if (!find_user(user, account, name, sizeof name)) {
        snprintf(words, WORDS_BYTES, "unable to find user %s in /etc/passwd of the image", user);
        return false;
    }
    bool explicit = group && *group;
    if (explicit && !find_group(group, account)) {
        snprintf(words, WORDS_BYTES, "unable to find group %s in /etc/group of the image", group);
        return false;
    }
    account->groups[account->group_count++] = account->gid;
    if (!explicit && *name)
        find_memberships(name, account);
    return true;
}
