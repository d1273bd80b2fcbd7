/* Tries to make a socket of every family by each door there is: socket(2) as a 64-bit program and as a 32-bit one, and
 * socketcall(2). Prints "DOOR FAMILY" for each that is not refused with EPERM: whether the kernel has it matters not. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static long as_32_bit(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void told(const char *door, int family, int refused) {
    if (!refused) printf("%s %d\n", door, family);
}

int main(void) {
    unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    for (int family = 0; family < 64; family++) {
        told("socket", family, syscall(SYS_socket, family, SOCK_STREAM, 0) < 0 && errno == EPERM);
        told("socket of 32 bits", family, as_32_bit(359, family, SOCK_STREAM, 0) == -EPERM);
        low[0] = family, low[1] = SOCK_STREAM, low[2] = 0;
        told("socketcall", family, as_32_bit(102, 1, (long)low, 0) == -EPERM);
    }
    return 0;
}
