"""System calls that Python's `os` lacks, one function for each, named and ordered as their man pages have them.

Each raises the `OSError` subclass of its errno with a note on the likely cause (`labkit.errors`). Flags are in
`labkit.constants`. What `os` already has (chroot, fork, execve, mknod, ...) is not repeated here.

A system call acts on the *calling thread*. namespaces(7) and credentials are attributes of threads, and only a process
of a single thread has one answer to "which namespace is it in?". So these belong in a child: `labkit.process`.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct

from labkit import constants as c
from labkit.errors import os_error

_libc = ctypes.CDLL(None, use_errno=True)
_int, _ulong, _long, _bytes, _pointer = (
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_long,
    ctypes.c_char_p,
    ctypes.c_void_p,
)


def _function(name: str, *argument_types: type) -> "ctypes._NamedFuncPointer":
    function = getattr(_libc, name)
    function.argtypes = argument_types
    function.restype = _int
    return function  # type: ignore[no-any-return]


_unshare = _function("unshare", _int)
_setns = _function("setns", _int, _int)
_sethostname = _function("sethostname", _bytes, ctypes.c_size_t)
_mount = _function("mount", _bytes, _bytes, _bytes, _ulong, _pointer)
_umount2 = _function("umount2", _bytes, _int)
_prctl = _function("prctl", _int, _ulong, _ulong, _ulong, _ulong)
_setfsuid = _function("setfsuid", _int)
_setfsgid = _function("setfsgid", _int)
_fstatfs = _function("fstatfs", _int, _pointer)
_socket = _function("socket", _int, _int, _int)
_inotify_init1 = _function("inotify_init1", _int)
_inotify_add_watch = _function("inotify_add_watch", _int, _bytes, ctypes.c_uint32)
_mmap = _libc.mmap
_mmap.argtypes = (_pointer, ctypes.c_size_t, _int, _int, _int, _long)
_mmap.restype = _pointer
_syscall = _libc.syscall  # variadic: each call below passes exact ctypes widths
_syscall.restype = _long
_CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, the calling thread
_NUMBER = {name: _long(number) for name, number in c.SYSCALL_NUMBERS.items()}


def _check(result: int, call: str, *arguments: object) -> int:
    """The one funnel: what a call returned, or the exception for what it set errno to."""
    if result == -1:
        raise os_error(ctypes.get_errno(), call, *arguments)
    return result


def _encode(path: str | None) -> bytes | None:
    if path is None:
        return None
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL byte")
    return os.fsencode(path)


# Namespaces


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces, one for each CLONE_NEW* flag. unshare(2), namespaces(7).

    CLONE_NEWPID is the exception: the caller stays where it is, and its *next child* becomes PID 1 of the new one.
    CLONE_NEWUSER needs no privilege, and gives all of them inside; each other flag takes CAP_SYS_ADMIN.
    EINVAL: more than one thread. EPERM: no CAP_SYS_ADMIN. ENOSPC: too many namespaces.
    """
    _check(_unshare(flags), "unshare", flags)


def setns(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into the namespace that `fd` refers to: an open /proc/PID/ns/KIND, or a pidfd. setns(2).

    `nstype` is 0 for any kind, or the CLONE_NEW* flag that the kind must have; with a pidfd, the flags of all kinds to
    join at once. As with `unshare`, a PID namespace takes effect for children only.
    """
    _check(_setns(fd, nstype), "setns", fd, nstype)


def sethostname(name: str) -> None:
    """Set the host name of the caller's UTS namespace: for every process in it. At most 64 bytes. sethostname(2)."""
    encoded = os.fsencode(name)
    _check(_sethostname(encoded, len(encoded)), "sethostname", name)


def clone3(flags: int, *, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Make a child in new namespaces; return `(pid, pidfd)` in the parent, `(0, -1)` in the child. clone3(2).

    As with fork(2), the child goes on here with a copy of the memory, but the Python interpreter is not told: only for
    processes of a single thread, whose child soon executes a program.
    """
    pidfd = ctypes.c_int(-1)
    arguments = clone_args(flags, ctypes.addressof(pidfd), cgroup_fd)
    pid = _check(_syscall(_NUMBER["clone3"], arguments, _ulong(len(arguments))), "clone3", flags)
    return (pid, pidfd.value) if pid else (0, -1)


def clone_args(flags: int, pidfd_address: int, cgroup_fd: int | None = None, tid_address: int = 0) -> bytes:
    """`struct clone_args` of clone3(2), for a child whose end is told by SIGCHLD and whose pidfd is stored.

    With CLONE_PARENT it becomes a sibling, whose end is told as the caller's own is. Where there is a `tid_address` its
    PID is stored there as soon as it exists, 32 bits.
    """
    flags |= c.CLONE_PIDFD | (c.CLONE_PARENT_SETTID if tid_address else 0)
    if cgroup_fd is not None:
        flags |= c.CLONE_INTO_CGROUP
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    exit_signal = 0 if flags & c.CLONE_PARENT else 17
    return struct.pack("=11Q", flags, pidfd_address, 0, tid_address, exit_signal, 0, 0, 0, 0, 0, cgroup_fd or 0)


# Mounts, the classic way


def mount(source: str | None, target: str, filesystemtype: str | None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system, bind-mount a folder (MS_BIND), or change a mount's flags or propagation. mount(2).

    Seen by every process in the caller's mount namespace, and, where `target` lies under a shared mount, in all
    namespaces that share it. ENOENT: no such mount point. EINVAL: `target` is not a mount. ENODEV: unknown type.
    """
    arguments = (_encode(source), _encode(target), _encode(filesystemtype), flags, _encode(data))
    _check(_mount(*arguments), "mount", source, target, filesystemtype, flags, data)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount what is mounted on `target`; MNT_DETACH: now from the tree, and for good when nobody uses it. umount2(2).

    EBUSY: in use. EINVAL: not a mount point, or one that came from a more privileged namespace.
    """
    _check(_umount2(_encode(target), flags), "umount2", target, flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root mount of the caller's mount namespace and move the old one to `put_old`. pivot_root(2).

    Every process of the namespace whose root or working directory was the old root gets the new one. Both paths may be
    ".": the old root then lies on top of the new one until umount2(".", MNT_DETACH).
    EINVAL: `new_root` is not a mount point, or shared. EBUSY: it is the present root.
    """
    new, old = _encode(new_root), _encode(put_old)
    _check(_syscall(_NUMBER["pivot_root"], new, old), "pivot_root", new_root, put_old)


# Mounts on descriptors: nobody can swap a path between two uses of it


def openat2(dirfd: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd`, led no further than the RESOLVE_* flags allow; return a descriptor. openat2(2).

    RESOLVE_IN_ROOT treats `dirfd` as the root: absolute symbolic links and `..` cannot leave it.
    EXDEV or ELOOP: the path leads out, or through a link that `resolve` forbids.
    """
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, mode, resolve)
    arguments = (_NUMBER["openat2"], _int(dirfd), _encode(path), how, _ulong(len(how)))
    return _check(_syscall(*arguments), "openat2", dirfd, path, flags, resolve)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """Open the mount at `path`; with OPEN_TREE_CLONE, a detached copy (a bind mount nobody sees yet). open_tree(2)."""
    call = (_NUMBER["open_tree"], _int(dirfd), _encode(path), _ulong(flags | c.OPEN_TREE_CLOEXEC))
    return _check(_syscall(*call), "open_tree", dirfd, path, flags)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int = 0) -> None:
    """Attach a mount to the tree, or move one; an empty path with its F_ or T_EMPTY_PATH means the descriptor itself.

    move_mount(2). ENOENT: no such mount point. EINVAL: the parent is shared and the mount is being moved.
    """
    call = (_int(from_fd), _encode(from_path), _int(to_fd), _encode(to_path), _ulong(flags))
    _check(_syscall(_NUMBER["move_mount"], *call), "move_mount", from_fd, from_path, to_fd, to_path, flags)


def mount_setattr(
    dirfd: int, path: str, flags: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0
) -> None:
    """Change MOUNT_ATTR_* flags and propagation of a mount, of all below it with AT_RECURSIVE. mount_setattr(2).

    MOUNT_ATTR_IDMAP shifts the owners of its files by the maps of the user namespace `userns_fd`; EINVAL: the file
    system cannot do that, or the mount is in use already.
    """
    attributes = struct.pack("=4Q", attr_set, attr_clr, propagation, userns_fd)
    call = (_int(dirfd), _encode(path), _ulong(flags), attributes, _ulong(len(attributes)))
    _check(_syscall(_NUMBER["mount_setattr"], *call), "mount_setattr", dirfd, path, flags, attr_set, attr_clr)


def fsopen(fsname: str) -> int:
    """Begin a new file system of type `fsname`; return a descriptor to configure it by. fsopen(2)."""
    return _check(_syscall(_NUMBER["fsopen"], _encode(fsname), _ulong(c.FSOPEN_CLOEXEC)), "fsopen", fsname)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set an option of the file system begun with `fsopen`, or create it (FSCONFIG_CMD_CREATE). fsconfig(2)."""
    call = (_int(fd), _ulong(command), _encode(key), _encode(value), _int(0))
    _check(_syscall(_NUMBER["fsconfig"], *call), "fsconfig", fd, command, key, value)


def fsmount(fd: int, attributes: int = 0) -> int:
    """Turn a created file system into a detached mount with MOUNT_ATTR_* flags; return its descriptor. fsmount(2)."""
    call = (_int(fd), _ulong(c.FSMOUNT_CLOEXEC), _ulong(attributes))
    return _check(_syscall(_NUMBER["fsmount"], *call), "fsmount", fd, attributes)


def filesystem_magic(fd: int) -> int:
    """The magic number of the file system `fd` lies on, such as PROC_SUPER_MAGIC. fstatfs(2)."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs begins with f_type, a long on both architectures
    _check(_fstatfs(fd, buffer), "fstatfs", fd)
    return int(struct.unpack_from("l", buffer)[0])


def watch_directory(path: str, mask: int) -> int:
    """A descriptor that tells of what happens in the directory `path`: IN_* of inotify(7). read(2) gives the events."""
    fd = _check(_inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        _check(_inotify_add_watch(fd, _encode(path), mask | c.IN_ONLYDIR), "inotify_add_watch", path, mask)
    except OSError:
        os.close(fd)
        raise
    return fd


# Network


def set_interface_up(name: str) -> None:
    """Bring up a network interface of the caller's network namespace, such as `lo`. netdevice(7): SIOCSIFFLAGS.

    EPERM: no CAP_NET_ADMIN over the namespace. ENODEV: no such interface.
    """
    fd = _check(_socket(2, 2 | os.O_CLOEXEC, 0), "socket")  # AF_INET, SOCK_DGRAM
    try:
        fcntl.ioctl(fd, 0x8914, struct.pack("=16sh22x", os.fsencode(name), 1))  # SIOCSIFFLAGS, IFF_UP
    except OSError as error:
        raise os_error(error.errno or 0, "ioctl", "SIOCSIFFLAGS", name) from None
    finally:
        os.close(fd)


# Processes


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Set or read an attribute of the calling thread or process. prctl(2)."""
    return _check(_prctl(option, arg2, arg3, arg4, arg5), "prctl", option, arg2, arg3, arg4, arg5)


def pidfd_open(pid: int) -> int:
    """A descriptor of process `pid`: it stays with that process, even when the number is used again. pidfd_open(2).

    ESRCH: it is gone. EINVAL: `pid` is a thread that leads no process.
    """
    pidfd = _syscall(_NUMBER["pidfd_open"], _int(pid), _ulong(0))
    # A process that is being reaped at this moment gives EINVAL too.
    if pidfd == -1 and ctypes.get_errno() == errno.EINVAL and pid > 0 and not os.path.exists(f"/proc/{pid}"):
        raise os_error(errno.ESRCH, "pidfd_open", pid)
    return _check(pidfd, "pidfd_open", pid)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send `signal` to the process behind `pidfd`. ESRCH: it is gone. pidfd_send_signal(2)."""
    call = (_int(pidfd), _int(signal), None, _ulong(0))
    _check(_syscall(_NUMBER["pidfd_send_signal"], *call), "pidfd_send_signal", pidfd, signal)


def close_range(first: int, last: int = 0x7FFFFFFF, flags: int = 0) -> None:
    """Close every descriptor from `first` to `last`, both included. close_range(2)."""
    call = (_NUMBER["close_range"], _ulong(first), _ulong(last), _ulong(flags))
    _check(_syscall(*call), "close_range", first, last, flags)


def setfsuid(fsuid: int) -> int:
    """As whom the calling thread opens and makes files from now on; return as whom it did so before. setfsuid(2).

    Its other ids stay: who may signal it or look into it is as before. With 0 given up go the capabilities that have to
    do with files, and come back with it. The call has no error: whether it worked, a second one tells.
    """
    return int(_setfsuid(fsuid))


def setfsgid(fsgid: int) -> int:
    """As which group the calling thread opens and makes files from now on; return as which before. setfsgid(2)."""
    return int(_setfsgid(fsgid))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability sets, each a mask of 1 << CAP_*. capset(2), capabilities(7).

    EPERM: a permitted capability that the thread does not have.
    """
    call = (_NUMBER["capset"], *capability_structs(effective, permitted, inheritable))
    _check(_syscall(*call), "capset", effective, permitted, inheritable)


def capability_structs(effective: int, permitted: int, inheritable: int) -> tuple[bytes, bytes]:
    """The two arguments of capset(2): `struct __user_cap_header_struct` for this thread, and the data."""
    masks = (effective, permitted, inheritable)
    words = [mask & 0xFFFFFFFF for mask in masks] + [mask >> 32 for mask in masks]
    return _CAPABILITY_HEADER, struct.pack("=6I", *words)


def capget() -> tuple[int, int, int]:
    """The calling thread's (effective, permitted, inheritable) capability masks. capget(2)."""
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER)
    data = ctypes.create_string_buffer(24)
    _check(_syscall(_NUMBER["capget"], header, data), "capget")
    words = struct.unpack("=6I", data.raw[:24])
    return (words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32)


# For lists of system calls: labkit.program


def raw(number: int, *arguments: int) -> int:
    """Make system call `number` with six 64-bit arguments as they are; return its result, or -errno. syscall(2)."""
    result = int(_syscall(_long(number), *map(ctypes.c_uint64, arguments)))
    return -ctypes.get_errno() if result == -1 else result


def executable(code: bytes) -> int:
    """The address of a private mapping of `code` that can be executed and not written. mmap(2).

    EACCES or EPERM: a security module forbids it.
    """
    fd = os.memfd_create("labkit-code", os.MFD_CLOEXEC)
    try:
        os.write(fd, code)
        address = _mmap(None, len(code), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise os_error(ctypes.get_errno(), "mmap", "PROT_EXEC")
        return int(address)
    finally:
        os.close(fd)
