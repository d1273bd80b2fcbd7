/* The floor: the same container, started by a small C program that does nothing else.
 *
 *     floor ROOT FILTER COMMAND [ARGUMENT...]
 *
 * For each byte on its standard input it starts COMMAND in a container with the root ROOT, and answers with a line.
 * "r": runs it to its end; the line is its exit code, nanoseconds on the clock, microseconds of CPU.
 * "s": leaves it running; the line is its PID. All end with this program.
 *
 * The child shares this program's memory until it executes COMMAND (CLONE_VM, CLONE_VFORK), so nothing is copied. Paths
 * are taken as they stand: unlike labkit's, this trusts the root. FILTER is a file with a seccomp filter, or "-".
 *
 * Given by the build: READONLY and MASKED, lists of paths; KEPT, the mask of capabilities.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const readonly_paths[] = {READONLY};
static const char *const masked_paths[] = {MASKED};
static const struct { const char *name; int major, minor; } devices[] = {
    {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
};
static const char *const links[][2] = {
    {"/proc/self/fd", "dev/fd"},          {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
    {"/proc/self/fd/2", "dev/stderr"},    {"pts/ptmx", "dev/ptmx"},
};
static char *const environment[] = {"PATH=/bin", NULL};
static const char *root;
static char **command;
static struct sock_fprog filter;
static int in_user_namespace, silent, capabilities;
static const char *volatile failed_at; /* written by the child: the memory is shared */
static volatile int failed_with;

#define TRY(call) do { if ((call) < 0) { failed_at = #call; failed_with = errno; _exit(127); } } while (0)

static void fill_dev(void) {
    TRY(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k"));
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        char path[32], source[32];
        snprintf(path, sizeof path, "dev/%s", devices[i].name);
        if (!in_user_namespace) {
            TRY(mknod(path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
            TRY(mount(path, path, NULL, MS_BIND, NULL)); /* stays a device below, where no others can be made */
            continue;
        }
        snprintf(source, sizeof source, "/dev/%s", devices[i].name);
        TRY(mknod(path, S_IFREG | 0644, 0));
        TRY(mount(source, path, NULL, MS_BIND, NULL));
    }
    TRY(mount(NULL, "dev", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        TRY(symlink(links[i][0], links[i][1]));
    TRY(mkdir("dev/pts", 0755));
    TRY(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
    TRY(mkdir("dev/shm", 0755));
    TRY(mount("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m"));
    TRY(mkdir("dev/mqueue", 0755));
    TRY(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static void cover_kernel_files(void) {
    const unsigned long plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    struct stat found;
    for (size_t i = 0; i < sizeof readonly_paths / sizeof *readonly_paths; i++) {
        if (stat(readonly_paths[i], &found) < 0)
            continue;
        TRY(mount(readonly_paths[i], readonly_paths[i], NULL, MS_BIND | MS_REC, NULL));
        TRY(mount(NULL, readonly_paths[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | plain, NULL));
    }
    for (size_t i = 0; i < sizeof masked_paths / sizeof *masked_paths; i++) {
        if (stat(masked_paths[i], &found) < 0)
            continue;
        if (S_ISDIR(found.st_mode))
            TRY(mount("tmpfs", masked_paths[i], "tmpfs", MS_RDONLY | plain, "size=0"));
        else
            TRY(mount("dev/null", masked_paths[i], NULL, MS_BIND, NULL));
    }
}

static void give_up_capabilities(void) {
    const unsigned long long kept = KEPT;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(unsigned)kept, (unsigned)kept, 0}, {(unsigned)(kept >> 32), (unsigned)(kept >> 32), 0}};
    for (int number = 0; number < capabilities; number++)
        if (!(kept >> number & 1))
            TRY(prctl(PR_CAPBSET_DROP, number, 0, 0, 0));
    TRY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    TRY(syscall(SYS_capset, &header, data));
}

static int child(void *unused) {
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd;
    (void)unused;
    TRY(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
    TRY(setsid());
    if (silent >= 0) {
        TRY(dup2(silent, 0));
        TRY(dup2(silent, 1));
        TRY(dup2(silent, 2));
    }
    TRY(fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    TRY(ioctl(fd, SIOCSIFFLAGS, &loopback));
    TRY(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    umask(0);
    TRY(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
    TRY(chdir(root));
    TRY(mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_NODEV, NULL));
    TRY(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    fill_dev();
    TRY(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL));
    cover_kernel_files();
    TRY(syscall(SYS_pivot_root, ".", "."));
    TRY(umount2(".", MNT_DETACH));
    TRY(chdir("/"));
    umask(022);
    TRY(sethostname("container", 9));
    TRY(syscall(SYS_close_range, 3, ~0u, 0));
    give_up_capabilities();
    TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (filter.len)
        TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
    TRY(execve(command[0], command, environment));
    return 0;
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        perror(path);
        exit(1);
    }
    close(fd);
}

/* Where we are not root, the containers' namespaces belong to a user namespace in which we are. */
static void become_root(void) {
    char uid_map[32], gid_map[32];
    snprintf(uid_map, sizeof uid_map, "0 %d 1", (int)geteuid());
    snprintf(gid_map, sizeof gid_map, "0 %d 1", (int)getegid());
    if (unshare(CLONE_NEWUSER) < 0) {
        perror("unshare");
        exit(1);
    }
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", uid_map);
    write_file("/proc/self/gid_map", gid_map);
    in_user_namespace = 1;
}

static void read_filter(const char *path) {
    static struct sock_filter instructions[4096];
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : NULL;
    if (file) {
        filter.filter = instructions;
        filter.len = (unsigned short)fread(instructions, sizeof *instructions, 4096, file);
        fclose(file);
    }
}

int main(int argc, char **argv) {
    static char stack[256 * 1024] __attribute__((aligned(64)));
    const int flags = CLONE_VM | CLONE_VFORK | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET |
                      CLONE_NEWCGROUP | SIGCHLD;
    char asked;
    if (argc < 4) {
        fputs("usage: floor ROOT FILTER COMMAND [ARGUMENT...]\n", stderr);
        return 2;
    }
    root = argv[1];
    read_filter(argv[2]);
    command = argv + 3;
    silent = getenv("FLOOR_SHOWS") ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);
    while (prctl(PR_CAPBSET_READ, capabilities, 0, 0, 0) >= 0)
        capabilities++;
    if (geteuid() != 0)
        become_root();
    while (read(0, &asked, 1) == 1) {
        struct timespec begun, ended;
        struct rusage before, after;
        int status = 0;
        failed_at = NULL;
        getrusage(RUSAGE_SELF, &before);
        clock_gettime(CLOCK_MONOTONIC, &begun);
        pid_t pid = clone(child, stack + sizeof stack, flags, NULL);
        if (pid < 0 || failed_at) {
            dprintf(2, "%s: %s\n", pid < 0 ? "clone" : failed_at, strerror(pid < 0 ? errno : failed_with));
            return 1;
        }
        if (asked == 's') {
            dprintf(1, "%d\n", (int)pid);
            continue;
        }
        struct rusage used;
        if (wait4(pid, &status, 0, &used) < 0)
            return 1;
        clock_gettime(CLOCK_MONOTONIC, &ended);
        getrusage(RUSAGE_SELF, &after);
        long long wall = (ended.tv_sec - begun.tv_sec) * 1000000000LL + ended.tv_nsec - begun.tv_nsec;
        long long cpu = 0;
        const struct rusage *parts[] = {&after, &used};
        for (int i = 0; i < 2; i++)
            cpu += (parts[i]->ru_utime.tv_sec + parts[i]->ru_stime.tv_sec) * 1000000LL + parts[i]->ru_utime.tv_usec +
                   parts[i]->ru_stime.tv_usec;
        cpu -= (before.ru_utime.tv_sec + before.ru_stime.tv_sec) * 1000000LL + before.ru_utime.tv_usec +
               before.ru_stime.tv_usec;
        dprintf(1, "%d %lld %lld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), wall, cpu);
    }
    return 0;
}
