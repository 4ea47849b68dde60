/*
 * The kernel emulates a filter for every number of a system call when it is loaded. The engine's
 * filter is one list of a few hundred comparisons, so loading it takes a millisecond. Here a search
 * tree over the numbers is put before it: a call that the filter decides by its number alone is
 * decided by the tree, and any other jumps to the step of the original that loads its first argument.
 *
 * Decisions cannot change: each range of numbers is decided by running the original on it. A filter
 * with a step that is not understood stays as it is.
 */
#include "sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>

#define LOAD (BPF_LD | BPF_W | BPF_ABS)
#define BOUNDARIES 4096u
#define TREE_STEPS FILTER_STEPS

#if defined __x86_64__
static const uint32_t machines[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_I386};
#elif defined __aarch64__
static const uint32_t machines[] = {AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM};
#else
static const uint32_t machines[1] = {0};
#endif
#define MACHINES (sizeof machines / sizeof *machines)

/* What follows from machine and number: an answer, or the step that needs more. */
struct outcome {
    bool known, answered;
    uint32_t value;
};

struct range {
    uint32_t first;
    struct outcome outcome;
};

static uint32_t boundary[BOUNDARIES];
static struct range range[BOUNDARIES];
static struct sock_filter tree[TREE_STEPS];
static size_t boundaries, steps;
static bool too_long;

/* ---- running a filter */

static uint32_t data_word(uint32_t offset, uint32_t machine, uint32_t call,
                          const uint64_t arguments[6])
{
    struct seccomp_data data = {.nr = (int)call, .arch = machine};
    memcpy(data.args, arguments, sizeof data.args);
    uint32_t word = 0;
    if (offset <= sizeof data - sizeof word)
        memcpy(&word, (const char *)&data + offset, sizeof word);
    return word;
}

static bool compare(const struct sock_filter *step, uint32_t value)
{
    switch (BPF_OP(step->code)) {
    case BPF_JEQ: return value == step->k;
    case BPF_JGT: return value > step->k;
    case BPF_JGE: return value >= step->k;
    default: return (value & step->k) != 0;
    }
}

uint32_t filter_run(const struct sock_filter *filter, size_t length, uint32_t machine, uint32_t call,
                    const uint64_t arguments[6])
{
    uint32_t value = 0;
    for (size_t at = 0; at < length; at++) {
        const struct sock_filter *step = &filter[at];
        if (step->code == LOAD)
            value = data_word(step->k, machine, call, arguments);
        else if (step->code == (BPF_ALU | BPF_AND | BPF_K))
            value &= step->k;
        else if (step->code == (BPF_JMP | BPF_JA))
            at += step->k;
        else if (BPF_CLASS(step->code) == BPF_JMP)
            at += compare(step, value) ? step->jt : step->jf;
        else
            return step->code == (BPF_RET | BPF_K) ? step->k : SECCOMP_RET_KILL_PROCESS;
    }
    return SECCOMP_RET_KILL_PROCESS;
}

/* Stops at the first step that loads something else than machine or number. */
static struct outcome decide(const struct sock_filter *filter, size_t length, uint32_t machine,
                             uint32_t call)
{
    uint32_t value = 0;
    for (size_t at = 0; at < length; at++) {
        const struct sock_filter *step = &filter[at];
        if (step->code == (BPF_RET | BPF_K))
            return (struct outcome){true, true, step->k};
        if (step->code == LOAD && step->k == offsetof(struct seccomp_data, nr))
            value = call;
        else if (step->code == LOAD && step->k == offsetof(struct seccomp_data, arch))
            value = machine;
        else if (step->code == LOAD)
            return (struct outcome){true, false, (uint32_t)at};
        else if (step->code == (BPF_JMP | BPF_JA))
            at += step->k;
        else if (BPF_CLASS(step->code) == BPF_JMP && BPF_SRC(step->code) == BPF_K)
            at += compare(step, value) ? step->jt : step->jf;
        else
            break;
    }
    return (struct outcome){0};
}

/* ---- ranges */

static void add_boundary(uint64_t number)
{
    if (number <= UINT32_MAX && boundaries < BOUNDARIES)
        boundary[boundaries++] = (uint32_t)number;
}

/* Between two neighbouring boundaries every comparison has one result. */
static bool find_boundaries(const struct sock_filter *filter, size_t length)
{
    boundaries = 0;
    add_boundary(0);
    for (size_t i = 0; i < length; i++) {
        uint32_t k = filter[i].k;
        unsigned int class = BPF_CLASS(filter[i].code);
        if (class == BPF_ALU || class == BPF_LD || class == BPF_RET) {
            /* An AND is reached only after the load of an argument; decide() refuses others. X and
             * the scratch memory are not used. */
            if (filter[i].code != LOAD && filter[i].code != (BPF_ALU | BPF_AND | BPF_K) &&
                filter[i].code != (BPF_RET | BPF_K))
                return false;
        } else if (class != BPF_JMP || (BPF_OP(filter[i].code) != BPF_JA &&
                                        BPF_SRC(filter[i].code) != BPF_K)) {
            return false;
        } else if (BPF_OP(filter[i].code) == BPF_JSET) {
            for (uint64_t low = k & -k, at = low; k >= 1u << 28 && low >= 1u << 28 &&
                                                  at <= UINT32_MAX; at += low)
                add_boundary(at);
        } else if (BPF_OP(filter[i].code) != BPF_JA) {
            add_boundary(k);
            add_boundary((uint64_t)k + 1);
        }
    }
    return boundaries < BOUNDARIES;
}

static int by_number(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

/* A test of single bits that no boundary stands for is allowed for arguments only. */
static bool tests_low_bits(const struct sock_filter *filter, size_t length, uint32_t machine,
                           uint32_t call)
{
    for (size_t at = 0; at < length; at++) {
        const struct sock_filter *step = &filter[at];
        uint32_t value = step->k == offsetof(struct seccomp_data, nr) ? call : machine;
        static uint32_t loaded;
        if (step->code == (BPF_RET | BPF_K) ||
            (step->code == LOAD && step->k != offsetof(struct seccomp_data, nr) &&
             step->k != offsetof(struct seccomp_data, arch)))
            return false;
        if (step->code == LOAD)
            loaded = value;
        else if (step->code == (BPF_JMP | BPF_JA))
            at += step->k;
        else {
            if (BPF_OP(step->code) == BPF_JSET && (step->k & -step->k) < 1u << 28)
                return true;
            at += compare(step, loaded) ? step->jt : step->jf;
        }
    }
    return false;
}

static bool same(struct outcome one, struct outcome other)
{
    return one.answered == other.answered && one.value == other.value;
}

/* How many ranges; 0: the filter is not understood. */
static size_t find_ranges(const struct sock_filter *filter, size_t length, uint32_t machine)
{
    size_t ranges = 0;
    for (size_t i = 0; i < boundaries; i++) {
        struct outcome outcome = decide(filter, length, machine, boundary[i]);
        if (!outcome.known || tests_low_bits(filter, length, machine, boundary[i]))
            return 0;
        if (ranges && same(range[ranges - 1].outcome, outcome))
            continue;
        range[ranges++] = (struct range){boundary[i], outcome};
    }
    return ranges;
}

/* ---- the tree */

static void add(struct sock_filter step)
{
    if (steps == TREE_STEPS)
        too_long = true;
    else
        tree[steps++] = step;
}

/* A jump into the original has no length yet: where that begins is known at the end. */
#define INTO_ORIGINAL (BPF_JMP | BPF_JA | BPF_X)

static void add_outcome(struct outcome outcome)
{
    if (outcome.answered)
        add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, outcome.value));
    else
        add((struct sock_filter)BPF_STMT(INTO_ORIGINAL, outcome.value));
}

/* A conditional jump reaches 255 steps only, so each side begins with a jump that reaches any. */
static void add_ranges(size_t first, size_t end)
{
    if (end - first == 1) {
        add_outcome(range[first].outcome);
        return;
    }
    size_t middle = first + (end - first) / 2;
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, range[middle].first, 0, 1));
    size_t right = steps;
    add((struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
    add_ranges(first, middle);
    if (!too_long)
        tree[right].k = (uint32_t)(steps - right - 1);
    add_ranges(middle, end);
}

static bool add_machine(const struct sock_filter *filter, size_t length, uint32_t machine)
{
    size_t ranges = find_ranges(filter, length, machine);
    if (!ranges)
        return false;
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, machine, 1, 0));
    size_t others = steps;
    add((struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
    add((struct sock_filter)BPF_STMT(LOAD, offsetof(struct seccomp_data, nr)));
    add_ranges(0, ranges);
    if (!too_long)
        tree[others].k = (uint32_t)(steps - others - 1);
    return !too_long;
}

/* Both must answer alike wherever two ranges meet, with three sets of arguments. */
static bool agrees(const struct sock_filter *filter, size_t length)
{
    static const uint64_t arguments[][6] = {
        {0}, {1, 1, 1, 1, 1, 1}, {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, 0, 0}};
    for (size_t m = 0; m <= MACHINES; m++)
        for (size_t i = 0; i < boundaries; i++)
            for (size_t set = 0; set < 3; set++) {
                uint32_t machine = m < MACHINES ? machines[m] : 1;
                if (filter_run(filter, length, machine, boundary[i], arguments[set]) !=
                    filter_run(tree, steps, machine, boundary[i], arguments[set]))
                    return false;
            }
    return true;
}

bool filter_to_tree(struct sock_filter *filter, unsigned short *length)
{
    steps = 0;
    too_long = false;
    if (!find_boundaries(filter, *length))
        return false;
    qsort(boundary, boundaries, sizeof *boundary, by_number);
    add((struct sock_filter)BPF_STMT(LOAD, offsetof(struct seccomp_data, arch)));
    for (size_t i = 0; i < MACHINES; i++)
        if (!add_machine(filter, *length, machines[i]))
            return false;
    if (steps + *length > FILTER_STEPS)
        return false;
    for (size_t i = 0; i < steps; i++)
        if (tree[i].code == INTO_ORIGINAL)
            tree[i] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA,
                                                   (uint32_t)(steps - i - 1) + tree[i].k);
    memcpy(tree + steps, filter, *length * sizeof *filter);
    steps += *length;
    if (!agrees(filter, *length))
        return false;
    memcpy(filter, tree, steps * sizeof *filter);
    *length = (unsigned short)steps;
    return true;
}
