/* Counts how often vector registers are lost: by a switch between threads, and by a signal in the middle.
 *
 *     registers SECONDS    prints "WIDTH CHECKS LOST SIGNALS"
 *
 * Each thread fills registers 0 to 15 (ymm, or zmm where the processor has them) with a number of its own, counts for a
 * while, and compares. A timer interrupts them all, and the handler fills the same registers with something else: what
 * the kernel does not save in the signal's frame is then wrong.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

enum { THREADS = 4, REGISTERS = 16 };
static int width; /* bytes of a register */
static volatile int ended;
static volatile long checks, lost, signals;

#define ALL(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define NAMES(KIND) \
    KIND "0", KIND "1", KIND "2", KIND "3", KIND "4", KIND "5", KIND "6", KIND "7", KIND "8", KIND "9", KIND "10", \
        KIND "11", KIND "12", KIND "13", KIND "14", KIND "15"
#define LOAD_YMM(N) "vmovdqu (%0), %%ymm" #N "\n"
#define LOAD_ZMM(N) "vmovdqu64 (%0), %%zmm" #N "\n"
#define STORE_YMM(N) "vmovdqu %%ymm" #N ", 32*" #N "(%1)\n"
#define STORE_ZMM(N) "vmovdqu64 %%zmm" #N ", 64*" #N "(%1)\n"
#define WAIT "mov $20000, %%rcx\n1: dec %%rcx\njnz 1b\n"

/* Fill all registers from `from`, wait, and store them to `to`: nothing but an interruption can come between. */
static void hold(const unsigned char *from, unsigned char *to) {
    if (width == 64)
        __asm__ volatile(ALL(LOAD_ZMM) WAIT ALL(STORE_ZMM)::"r"(from), "r"(to) : "rcx", "memory", NAMES("xmm"));
    else
        __asm__ volatile(ALL(LOAD_YMM) WAIT ALL(STORE_YMM)::"r"(from), "r"(to) : "rcx", "memory", NAMES("xmm"));
}

static void handler(int number) {
    (void)number;
    unsigned char other[64];
    memset(other, 0xee, sizeof other);
    if (width == 64)
        __asm__ volatile(ALL(LOAD_ZMM)::"r"(other) : NAMES("xmm"));
    else
        __asm__ volatile(ALL(LOAD_YMM)::"r"(other) : NAMES("xmm"));
    __atomic_add_fetch(&signals, 1, __ATOMIC_RELAXED);
}

static void *work(void *argument) {
    unsigned char wanted[64], found[64 * REGISTERS];
    for (unsigned round = 0; !ended; round++) {
        for (int at = 0; at < 64; at++) wanted[at] = (unsigned char)(round * 31 + at * 7 + (uintptr_t)argument * 101);
        hold(wanted, found);
        for (int number = 0; number < REGISTERS; number++) {
            __atomic_add_fetch(&checks, 1, __ATOMIC_RELAXED);
            if (memcmp(wanted, found + number * width, (size_t)width)) __atomic_add_fetch(&lost, 1, __ATOMIC_RELAXED);
        }
    }
    return 0;
}

int main(int count, char **words) {
    if (count != 2) return 2;
    width = __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx") ? 32 : 0;
    if (!width) {
        puts("0 0 0 0");
        return 0;
    }
    signal(SIGALRM, handler);
    struct itimerval often = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_REAL, &often, 0);
    pthread_t threads[THREADS];
    for (long number = 0; number < THREADS; number++) pthread_create(&threads[number], 0, work, (void *)number);
    for (time_t end = time(0) + atoi(words[1]); time(0) < end;) {
        struct timespec moment = {0, 50000000};
        nanosleep(&moment, 0);
    }
    ended = 1;
    for (int number = 0; number < THREADS; number++) pthread_join(threads[number], 0);
    printf("%d %ld %ld %ld\n", width, checks, lost, signals);
    return 0;
}
