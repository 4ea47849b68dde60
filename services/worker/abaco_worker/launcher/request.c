/*
 * Decodes the body of a request: strings, each terminated by a NUL, which neither an argument nor a
 * variable can contain. They have this order; numbers are decimal:
 *
 *   output_limit  max_run_ms  grace_ms  stop_signal  user  directory
 *   argc  argv[argc]  variables to the end
 */
#include "launcher.h"

#include <stdlib.h>
#include <string.h>

static char *strings[REQUEST_STRINGS + SPARE_VARIABLES + 2]; /* + 2: the NULLs of both arrays */

struct cursor {
    char *at;
    const char *end;
};

static char *next(struct cursor *cursor)
{
    if (cursor->at >= cursor->end)
        return NULL;
    char *string = cursor->at;
    cursor->at += strlen(string) + 1;
    return string;
}

static bool next_number(struct cursor *cursor, uint64_t *number)
{
    const char *string = next(cursor);
    if (!string || string[0] < '0' || string[0] > '9' || strlen(string) > 18)
        return false;
    char *end;
    *number = strtoull(string, &end, 10);
    return *end == '\0';
}

bool request_parse(char *body, size_t length, struct request *request, const char **why)
{
    *why = "malformed request";
    if (length == 0 || body[length - 1] != '\0')
        return false;
    struct cursor cursor = {body, body + length};
    uint64_t argc;
    if (!next_number(&cursor, &request->output_limit) ||
        !next_number(&cursor, &request->max_run_ms) || !next_number(&cursor, &request->grace_ms) ||
        !next_number(&cursor, &request->stop_signal) || request->stop_signal < 1 ||
        request->stop_signal > KERNEL_SIGNALS || !(request->user = next(&cursor)) ||
        !(request->directory = next(&cursor)) || !next_number(&cursor, &argc))
        return false;

    size_t count = 0;
    request->argv = strings;
    for (; argc > 0; argc--) {
        if (count == REQUEST_STRINGS || !(strings[count] = next(&cursor)))
            return false;
        count++;
    }
    strings[count] = NULL;
    request->environment = strings + count + 1;
    size_t variables = 0;
    for (char *string; (string = next(&cursor)); variables++) {
        if (count + variables == REQUEST_STRINGS) {
            *why = "too many variables";
            return false;
        }
        request->environment[variables] = string;
    }
    request->environment[variables] = NULL;
    return true;
}

const char *variable(char **environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}
