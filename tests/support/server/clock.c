/* A clock on the wall that a test can set: LD_PRELOAD it, and write seconds into $TEST_CLOCK.
 *
 * The file holds one signed 64-bit number of seconds, which is added to the real time; it is mapped,
 * so a step is seen at once by a process that runs. The monotonic clocks are left as they are, as
 * they are when an operator sets a machine's clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *steps;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found;

    if (file < 0)
        return;
    found = mmap(NULL, sizeof *steps, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED)
        steps = found;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, time);

    if (!failed && steps && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *steps;
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec found;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &found))
        return -1;
    time->tv_sec = found.tv_sec;
    time->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place)
{
    struct timespec found;

    if (clock_gettime(CLOCK_REALTIME, &found))
        return -1;
    if (place)
        *place = found.tv_sec;
    return found.tv_sec;
}
