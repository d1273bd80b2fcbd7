"""Numbers of the kernel's interface, spelled as its headers spell them.

They are the same on amd64 and arm64 except for the older system call numbers at the end, which each architecture
inherited from its own past.
"""

import os

# linux/sched.h: what clone(2) and unshare(2) make anew for a process.
CLONE_VM = 0x00000100
CLONE_VFORK = 0x00004000
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_PARENT_SETTID = 0x00100000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

# linux/mount.h: flags of mount(2).
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_STRICTATIME = 1 << 24

# sys/mount.h: flags of umount2(2).
MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

# linux/fcntl.h: where a path starts, and what an empty one means.
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# linux/mount.h: the mount calls that work on descriptors (open_tree, move_mount, fsopen, fsmount, mount_setattr).
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x00000004
MOVE_MOUNT_T_EMPTY_PATH = 0x00000040
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x00000001
MOUNT_ATTR_NOSUID = 0x00000002
MOUNT_ATTR_NODEV = 0x00000004
MOUNT_ATTR_NOEXEC = 0x00000008
MOUNT_ATTR_NOATIME = 0x00000010
MOUNT_ATTR_STRICTATIME = 0x00000020
MOUNT_ATTR_NODIRATIME = 0x00000080
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
MOUNT_ATTR_IDMAP = 0x00100000

# linux/openat2.h: how far a path may lead.
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1

# linux/close_range.h
CLOSE_RANGE_CLOEXEC = 4

# linux/inotify.h: what happened in a directory.
IN_DELETE = 0x00000200
IN_ONLYDIR = 0x01000000

# linux/magic.h: what statfs(2) calls a file system.
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
NSFS_MAGIC = 0x6E736673
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630

# asm/unistd.h: system call numbers, amd64 and arm64. From 424 on both share one table.
_MACHINE = os.uname().machine
_BOTH = {
    "capget": (125, 90),
    "capset": (126, 91),
    "chdir": (80, 49),
    "close": (3, 57),
    "dup3": (292, 24),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "fchdir": (81, 50),
    "fchown": (93, 55),
    "ioctl": (16, 29),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "recvmsg": (47, 212),
    "seccomp": (317, 277),
    "sendmsg": (46, 211),
    "setdomainname": (171, 162),
    "setgroups": (116, 159),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "socket": (41, 198),
    "symlinkat": (266, 36),
    "umask": (95, 166),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "write": (1, 64),
}
SYSCALL_NUMBERS = {name: numbers[_MACHINE == "aarch64"] for name, numbers in _BOTH.items()} | {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
