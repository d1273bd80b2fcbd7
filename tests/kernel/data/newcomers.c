/* Stops every process that comes into this PID namespace, tries to reach its memory and its descriptors, and lets it go
 * on, unless there is an argument. Prints a line for each that it has reached before that process had executed a program
 * of the container's. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char seen[1 << 22];

/* How many of a process's descriptors can be opened from here. */
static int descriptors(int pid) {
    int count = 0;
    for (int number = 0; number < 64; number++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
        int fd = open(path, O_PATH);
        if (fd >= 0) count++, close(fd);
    }
    return count;
}

int main(int argc, char **argv) {
    int me = getpid(), keep = argc > 1;
    setvbuf(stdout, 0, _IONBF, 0);
    puts("ready");
    for (;;) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (proc && (entry = readdir(proc))) {
            int pid = atoi(entry->d_name);
            if (pid <= me || seen[pid] || kill(pid, SIGSTOP)) continue;
            seen[pid] = 1;
            char path[64], name[64] = "";
            snprintf(path, sizeof path, "/proc/%d/mem", pid);
            int memory = open(path, O_RDWR), fds = descriptors(pid);
            /* Last: a signal stops a process only where it comes out of the kernel, and so perhaps after its execve,
             * which gives it another name. One that has ended has executed its command before. */
            snprintf(path, sizeof path, "/proc/%d/comm", pid);
            int comm = open(path, O_RDONLY), executed = read(comm, name, sizeof name) <= 0 || strncmp(name, "labkit", 6);
            if (comm >= 0) close(comm);
            if (!executed && (memory >= 0 || fds))
                printf("reached %d: memory %d, %d descriptors, %s", pid, memory, fds, name);
            else if (!executed)
                puts("met a newcomer");
            if (memory >= 0) close(memory);
            if (executed || !keep) kill(pid, SIGCONT);
        }
        if (proc) closedir(proc);
    }
}
