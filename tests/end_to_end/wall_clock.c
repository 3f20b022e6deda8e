/*
 * What time is it? As many nanoseconds from the true time as the file says that MFAD_TEST_CLOCK names: 8 octets, which a test
 * changes while the program runs. For LD_PRELOAD. Only the wall clock is moved; sleeping and waiting are left alone, which
 * libfaketime does not do (its clock_nanosleep answers EINVAL to time.sleep of Python at times).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t nothing;
static _Atomic int64_t *offset_ns = &nothing;

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("MFAD_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *seen = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED)
        offset_ns = seen;
}

static int real(clockid_t clock, struct timespec *at)
{
    static _Atomic(void *) next;
    if (!next)
        next = dlsym(RTLD_NEXT, "clock_gettime");
    int (*ask)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))(void *)next;
    return ask ? ask(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int result = real(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + atomic_load(offset_ns);
        at->tv_sec = ns / 1000000000;
        at->tv_nsec = ns % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
