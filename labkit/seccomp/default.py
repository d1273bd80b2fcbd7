"""What a container may ask of the kernel unless told otherwise: the decisions of Docker's default profile.

Refused (EPERM) is what is left over: loading modules and kernels, mounting, namespaces, keys (which know no
namespace), tracing of the kernel, clocks, swap, quotas, raw ports, and what nobody has used for decades. Where the
container keeps a capability, the calls that it is made for are allowed besides; the kernel then checks the rest.
Sources: docs.docker.com/engine/security/seccomp, capabilities(7).
"""

import os

from labkit.seccomp.profile import Arg, Profile, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Allowed to everybody, by what they are about. Names that only other architectures have do no harm.
ALLOWED = {
    "files": """
        access chmod chown chown32 close close_range copy_file_range creat faccessat faccessat2 fadvise64 fadvise64_64
        arm_fadvise64_64 fallocate fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
        flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
        futimesat getxattr getxattrat lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr
        lremovexattr lseek _llseek lsetxattr lstat lstat64 mknod mknodat name_to_handle_at newfstatat open openat
        openat2 readahead readlink readlinkat removexattr removexattrat rename renameat renameat2 setxattr setxattrat
        stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 arm_sync_file_range
        syncfs truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes
    """,
    "folders and mounts, looked at": """
        chdir fchdir getcwd getdents getdents64 mkdir mkdirat rmdir listmount statmount fanotify_mark inotify_add_watch
        inotify_init inotify_init1 inotify_rm_watch
    """,
    "reading and writing": """
        dup dup2 dup3 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
        pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readv sendfile sendfile64 splice tee vmsplice
        write writev
    """,
    "waiting for several": """
        _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
        epoll_wait_old eventfd eventfd2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
    """,
    "sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
        recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
    """,
    "memory": """
        brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
        mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        remap_file_pages cacheflush
    """,
    "processes and threads": """
        execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp getpid getppid getsid
        gettid kill pidfd_open pidfd_send_signal prctl process_mrelease process_vm_readv process_vm_writev ptrace
        restart_syscall rseq set_robust_list set_thread_area set_tid_address set_tls setpgid setsid tgkill tkill vfork
        wait4 waitid waitpid breakpoint uretprobe riscv_hwprobe
    """,
    "locks and messages": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr mq_notify mq_open
        mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
        semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
    """,
    "signals": """
        alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
        rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
    """,
    "users and what they may": """
        capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
        getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
        setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid
        setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32
    """,
    "time": """
        adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
        timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
        timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
    """,
    "one's share of the machine": """
        getcpu getpriority getrandom getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max
        sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield setpriority setrlimit sysinfo ugetrlimit uname
    """,
}

#: Allowed besides to who keeps that capability.
ALLOWED_WITH = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYSLOG": "syslog",
    "SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """,
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
}

# The flags of clone(2) that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NEW_NAMESPACES = 0x7E020000
# personality(2): 0 and PER_LINUX32, either with UNAME26, and the question what it is now.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_EPERM, _ENOSYS = 1, 38
# Docker's has x32 besides, which next to no kernel runs; without it a container starts a little faster.
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_OF_X86 = "arch_prctl modify_ldt"


def default_profile(capabilities: "Iterable[str]", machine: str = "") -> Profile:
    """Docker's decisions for a container that keeps `capabilities` (names with or without "CAP_")."""
    machine = machine or os.uname().machine
    kept = {name.upper().removeprefix("CAP_") for name in capabilities}
    names = " ".join([*ALLOWED.values(), *(calls for name, calls in ALLOWED_WITH.items() if name in kept)]).split()
    if machine == "x86_64":
        names += _OF_X86.split()
    allow = "SCMP_ACT_ALLOW"
    rules = [Rule(sorted(set(names)), allow)]
    # Every family of sockets but AF_ALG (38), much kernel code for few users, and AF_VSOCK (40), which knows
    # no network namespace and reaches the hypervisor. What is compared has 64 bits, and the kernel looks at 32 of them:
    # so the rules say what is allowed, and not what is refused. Nor may a 32-bit x86 program
    # make any by socketcall, where the family lies in memory: Docker lets that through. It costs
    # such programs their sockets if their libc is for kernels before 4.3, as Debian's i386 is.
    rules.append(Rule(["socket"], allow, args=[Arg(0, 38, "SCMP_CMP_LT")]))
    rules += [Rule(["socket"], allow, args=[Arg(0, family, "SCMP_CMP_EQ")]) for family in (39, 41, 42, 43, 44, 45)]
    rules += [Rule(["personality"], allow, args=[Arg(0, kind, "SCMP_CMP_EQ")]) for kind in _PERSONALITIES]
    if "SYS_ADMIN" not in kept:
        rules.append(Rule(["clone"], allow, args=[Arg(0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ", 0)]))
        # Its flags lie in memory, where no filter can look: libc takes this for an old kernel and uses clone.
        rules.append(Rule(["clone3"], "SCMP_ACT_ERRNO", _ENOSYS))
    return Profile("SCMP_ACT_ERRNO", _EPERM, _ARCHITECTURES.get(machine, ()), rules)
