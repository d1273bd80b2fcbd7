"""Filters in the kernel: what they decide on paper is what becomes of real system calls."""

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from labkit import bpf, capabilities, libseccomp, seccomp, syscalls
from labkit import constants as c
from labkit.process import run_in_child
from labkit.program import Program
from labkit.seccomp import Profile, Rule
from tests.requirements import machine_cannot

DEFAULT = seccomp.default_profile(capabilities.DEFAULT)


def numbers() -> dict[str, int]:
    return {name: number for number, name in libseccomp.known(libseccomp.native()).items()}


T = TypeVar("T")


def filtered(code: bytes, fn: Callable[[], T]) -> T:
    """What `fn` returns in a child that has given up all capabilities and is under the filter `code`."""

    def body() -> T:
        capabilities.keep_only(0)
        seccomp.load(code)
        return fn()

    return run_in_child(body)


def answer(number: int, *arguments: int) -> str:
    result = syscalls.raw(number, *arguments, *(0,) * (6 - len(arguments)))
    return errno.errorcode.get(-result, str(result)) if result < 0 else "ok"


def test_every_call_that_the_default_refuses_is_refused() -> None:
    code = seccomp.compile_profile(DEFAULT)
    decided = {number: bpf.decision(bpf.run(code, number, libseccomp.native())) for number in range(1024)}
    expected = {number: decision.split()[1] for number, decision in decided.items() if decision != "allow"}
    # uretprobe and uprobe of amd64, since Linux 6.14 and 6.18: the kernel calls itself by them, past every filter, and
    # kills who does so otherwise.
    for number in (335, 336):
        expected.pop(number, None)
    assert len(expected) > 500
    # Their arguments are zeros and there are no capabilities: should the filter not hold, no harm is done.
    found = filtered(code, lambda: {number: answer(number) for number in expected})
    assert found == expected


def test_the_refusals_have_their_names() -> None:
    number = numbers()
    refused = ["mount", "umount2", "unshare", "setns", "keyctl", "add_key", "bpf", "perf_event_open"]
    refused += ["open_tree", "fsopen", "kexec_load"]

    def body() -> dict[str, str]:
        found = {name: answer(number[name]) for name in refused}
        found["clone3"] = answer(number["clone3"])
        found["999"] = answer(999)
        found["clone"] = answer(number["clone"], c.CLONE_NEWUSER | 17)
        found["getppid"] = answer(number["getppid"])
        return found

    found = filtered(seccomp.compile_profile(DEFAULT), body)
    assert found == {
        **dict.fromkeys(refused, "EPERM"),
        "clone3": "ENOSYS",
        "999": "ENOSYS",
        "clone": "EPERM",
        "getppid": "ok",
    }


def test_python_lives_under_it() -> None:
    """Threads, processes, sockets, files, time: what clone3 and other new calls are tried for, and old ones serve."""

    def body() -> list[object]:
        import subprocess
        import tempfile
        import threading
        import time

        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append("thread"))
        thread.start()
        thread.join()
        found.append(subprocess.run(["echo", "process"], capture_output=True, text=True).stdout)
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"socket")
            found.append(server.accept()[0].recv(10))
        with tempfile.TemporaryFile() as file:
            found.append(file.write(b"file"))
        time.sleep(0)
        for family in (socket.AF_VSOCK, socket.AF_ALG):
            try:
                socket.socket(family, socket.SOCK_STREAM)
            except PermissionError as error:
                found.append(error.errno)
        return found

    found = filtered(seccomp.compile_profile(DEFAULT), body)
    assert found == ["thread", "process\n", b"socket", 4, errno.EPERM, errno.EPERM]


def test_with_sys_admin_namespaces_may_be_made() -> None:
    """The filter for a container that keeps it lets through what it is for, and the kernel decides."""

    def body() -> list[str]:
        seccomp.load(seccomp.compile_profile(seccomp.default_profile(["SYS_ADMIN"])))
        syscalls.unshare(c.CLONE_NEWUTS)
        syscalls.sethostname("renamed")
        return [socket.gethostname(), answer(numbers()["keyctl"])]

    assert run_in_child(body) == ["renamed", "EPERM"]


def test_children_and_what_they_execute_are_under_it_too() -> None:
    code = seccomp.compile_profile(Profile("SCMP_ACT_ALLOW", syscalls=[Rule(["uname"], "SCMP_ACT_ERRNO", errno.EXDEV)]))

    def body() -> tuple[int, str]:
        import subprocess

        done = subprocess.run(["uname"], capture_output=True, text=True, env={"LC_ALL": "C"})
        return done.returncode, done.stderr

    status, said = filtered(code, body)
    assert status == 1
    assert os.strerror(errno.EXDEV) in said


def test_a_filter_by_hand_decides_in_the_kernel_as_on_paper() -> None:
    machine = os.uname().machine
    if machine not in bpf.ARCHITECTURES:
        machine_cannot("be amd64 or arm64")
    text = f"""
            ld [arch]
            jeq #{machine}, ours, kill
    ours:   ld [nr]
            jeq #getppid, no
            jgt #900, new
            jeq #prctl, look
            ret allow
    look:   ld [arg0]
            jeq #12345, no
            ret allow
    no:     ret errno #EXDEV
    new:    ret errno #ENOSYS
    kill:   ret kill_process
    """
    number = numbers()
    code = bpf.assemble(text, number)
    tried = [(number["getppid"],), (number["getpid"],), (901,), (number["prctl"], 12345), (number["prctl"], 23, 0)]
    on_paper = [bpf.decision(bpf.run(code, nr, libseccomp.native(), arguments)) for nr, *arguments in tried]
    assert on_paper == ["errno EXDEV", "allow", "errno ENOSYS", "errno EXDEV", "allow"]
    assert filtered(code, lambda: [answer(*call) for call in tried]) == ["EXDEV", "ok", "ENOSYS", "EXDEV", "ok"]


def test_a_process_that_is_killed_is_killed_whole() -> None:
    code = seccomp.compile_profile(Profile("SCMP_ACT_ALLOW", syscalls=[Rule(["getppid"], "SCMP_ACT_KILL_PROCESS")]))

    def body() -> int:
        pid = os.fork()
        if pid == 0:
            capabilities.keep_only(0)
            seccomp.load(code)
            os.getppid()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert run_in_child(body) == -31  # SIGSYS


# mov eax, edi; then int 0x80 with zeros for arguments: a system call of i386, by a 64-bit process.
_INT_80 = bytes.fromhex("53 55 89f8 31db 31c9 31d2 31f6 31ff 31ed cd80 4898 5d 5b c3")


def test_i386_is_no_way_around_it() -> None:
    if os.uname().machine != "x86_64":
        machine_cannot("call as i386")

    def int_80(number: int) -> int:
        return int(ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(syscalls.executable(_INT_80))(number))

    def by_i386(number: int) -> str:
        result = int_80(number)
        return errno.errorcode.get(-result, str(result)) if result < 0 else "ok"

    def alone() -> int:
        pid = os.fork()
        if pid == 0:
            # getpid. A kernel without i386 kills us; User Mode Linux takes it for amd64's 20, which is another call.
            os._exit(int_80(20) != os.getpid())
        return os.waitpid(pid, 0)[1]

    if run_in_child(alone):
        machine_cannot("run i386 programs")
    getpid, mount, getppid = 20, 21, 64
    found = filtered(seccomp.compile_profile(DEFAULT), lambda: [by_i386(nr) for nr in (getpid, mount, 999)])
    assert found == ["ok", "EPERM", "ENOSYS"]
    only_native = Profile("SCMP_ACT_ERRNO", errno.EXDEV, syscalls=DEFAULT.syscalls)
    found = filtered(seccomp.compile_profile(only_native), lambda: [by_i386(nr) for nr in (getpid, mount, getppid)])
    assert found == ["EXDEV"] * 3


def test_a_program_of_system_calls_puts_it_on_before_it_executes() -> None:
    code = seccomp.compile_profile(DEFAULT)

    def body() -> tuple[int, str]:
        program = Program()
        capabilities.write_keep_only(program, 0)
        seccomp.write(program, code)
        reader, writer = os.pipe()
        program.call("dup3", writer, 1, 0)
        program.call("execve", "/bin/grep", ("grep", "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status"), ())
        pid, pidfd = program.spawn(0)
        os.close(writer)
        os.close(pidfd)
        status = os.waitpid(pid, 0)[1]
        return status, os.read(reader, 1000).decode()

    assert run_in_child(body) == (0, "NoNewPrivs:\t1\nSeccomp:\t2\n")


def test_without_no_new_privs_an_ordinary_process_may_not_filter() -> None:
    def body() -> list[str]:
        syscalls.capset(0, 0, 0)
        try:
            seccomp.load(bpf.assemble("ret allow"))
        except PermissionError as error:
            return [str(errno.errorcode[error.errno or 0]), *error.__notes__]
        return []

    (name, note) = run_in_child(body)
    assert name == "EACCES"
    assert "no_new_privs" in note


def test_a_filter_that_reads_beyond_its_input_is_refused() -> None:
    def body() -> str:
        try:
            seccomp.load(bpf.assemble("ld [64]\nret allow"))
        except OSError as error:
            return str(errno.errorcode[error.errno or 0])
        return "taken"

    assert run_in_child(body) == "EINVAL"
