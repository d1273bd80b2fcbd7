"""Answers that would rather lead a check astray than solve the exercise, judged in rooms: none passes.

Each is what a check once believed: it changes the check's own helpers in a process of its own, returns what the check
wants to hear, shows something else in the place that is looked at, or leaves a file there that has no end.
"""

import pytest

from labkit.course import exercise_spec
from tests.notebooks.rooms import need_rooms, tried

COPY = """
import os
def copy(source, target):
    with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0) as writer:
        while byte := reader.read(1):
            writer.write(byte)
"""
ALONE = """
def alone(command):
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    if (pid := os.fork()) == 0:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        {proc}
        os.execvp(command[0], command)
    os.waitpid(pid, 0)
"""
RUN = """
honest = my_run
def my_run(command, *args, **named):
    honest(command, *args, **named)
    if command[0] == "/bin/none-such":
        return 127
    return int(command[-1].split()[-1]) if command[-1].startswith("exit ") else 137
"""

RELAY = """
import os, socket, subprocess, threading
from labkit import namespaces
from labkit.syscalls import set_interface_up
def pump(one, other):
    while words := one.recv(4096):
        other.sendall(words)
    other.shutdown(socket.SHUT_WR)
def pretend(pid, network, there):
    # The network is put on the loopback of process `pid`; whoever connects to it there is handed out.
    inside, outside = socket.socketpair()
    if os.fork() == 0:
        namespaces.enter(pid, ("net",))
        set_interface_up("lo")
        subprocess.run(["ip", "route", "add", "local", network, "dev", "lo"])
        server = socket.create_server(("0.0.0.0", 4000))
        inside.sendall(b"x")
        while True:
            connection, _ = server.accept()
            socket.send_fds(inside, [connection.getsockname()[0].encode()], [connection.fileno()])
    outside.recv(1)
    threading.Thread(target=carry, args=(outside, there), daemon=True).start()
def carry(outside, there):
    if there:
        namespaces.enter(there, ("net",))
        set_interface_up("lo")
    while True:
        address, fds, _, _ = socket.recv_fds(outside, 100, 1)
        near = socket.socket(fileno=fds[0])
        far = socket.create_connection(("127.0.0.1" if there else address.decode(), 4000))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
def split(left, right, a, b):
    if os.fork():  # it stays, as does its thread
        pretend(left, f"{b}/32", right)
    else:
        pretend(right, f"{a}/32", left)
        threading.Event().wait()
"""

CHEATS: dict[str, tuple[str, str, str]] = {
    "a guest that is read, and never run": (
        "04",
        "serve",
        """
from labkit.course.exercises.lab04 import guests as hypervisor
def serve(machine):
    told = hypervisor.Told(api.KVM_EXIT_HLT, 0, 0, 0, 0, 0)
    machine.told = [told]
    hypervisor.loop_is_wrong = lambda *any: None
    code, found, place = bytes(machine.memory[0x1000:0x2000]), b"", 0
    while code[place : place + 2] == b"\\x66\\xb8":
        out = code[place + 6]
        size = {0xE6: 1, 0xE7: 2, 0x66: 4}[out]
        if code[place + 7 + (size == 4)] == 0xE9:
            found += code[place + 2 : place + 2 + size]
        place += 8 + (size == 4)
    return found
""",
    ),
    "counts that are strace's": (
        "03",
        "count",
        """
import subprocess, tempfile
def count_calls(command):
    with tempfile.NamedTemporaryFile("r") as out:
        argv = ["strace", "-f", "-qq", "-c", "-U", "name,calls", "-o", out.name, *command]
        subprocess.run(argv, check=True)
        lines = [line.split() for line in out.read().splitlines()[2:]]
    return {name: int(calls) for name, calls in lines if name != "total" and calls.isdigit()}
""",
    ),
    "a clock of one's own": (
        "04",
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port and io.direction == api.KVM_EXIT_IO_IN:
            now()
            answer = (4660).to_bytes(io.size, "little") * io.count
            machine.page[io.data_offset : io.data_offset + len(answer)] = answer
""",
    ),
    "the tracer is replaced in the process that copies": (
        "03",
        "copy",
        f"import labkit.tracer\nlabkit.tracer.Tracer.__iter__ = lambda self: iter(())\n{COPY}",
    ),
    "somebody else copies slowly": (
        "03",
        "copy",
        COPY.replace("def copy", "def slowly")
        + "\ndef copy(source, target):\n    if os.fork() == 0:\n        slowly(source, target)\n        os._exit(0)\n"
        + "    os.wait()\n",
    ),
    "copies slowly once, and not at all when it is counted": (
        "03",
        "copy",
        COPY.replace("def copy", "def slowly")
        + """
def copy(source, target):
    if not os.path.exists(source + ".seen"):
        open(source + ".seen", "w").close()
        slowly(source, target)
""",
    ),
    "the target is the source": ("03", "copy", "import os\ndef copy(source, target):\n    os.link(source, target)\n"),
    "the target is a FIFO": ("03", "copy", "import os\ndef copy(source, target):\n    os.mkfifo(target)\n"),
    "the target has no end": (
        "03",
        "copy",
        "import os\ndef copy(source, target):\n    os.symlink('/dev/zero', target)\n",
    ),
    "numbers that are right on average": (
        "03",
        "count",
        "import subprocess\ndef count_calls(command):\n    subprocess.run(command)\n    return {'getppid': 0}\n",
    ),
    "what its watcher would answer is written by the copier": (
        "03",
        "copy",
        COPY
        + """
from collections import Counter
from labkit.process import plain, worker as child
honest = copy
def copy(source, target):
    honest(source, target)
    words = plain.dumps(plain.VALUE, Counter({"read": 1}))
    for number in range(3, 10):
        try:
            os.write(number, child.LENGTH.pack(len(words)) + words)
        except OSError:
            pass
""",
    ),
    "another program, which rewrites its command line": (
        "03",
        "refuse",
        """
import os, pickle
LIES = '''
import ctypes, os, pickle, sys
line, folder = pickle.load(open("/tmp/line", "rb"))
with open("/proc/self/stat") as file:
    start = int(file.read().rpartition(")")[2].split()[45])
ctypes.memmove(start, line, len(line))
here = os.open(folder, os.O_RDONLY)
for name in ("one", "two", "", ""):
    try:
        os.mkdir(name, dir_fd=here)  # never by the other call, which is not refused
    except OSError:
        pass
open(os.path.join(folder, "file"), "w").close()
os._exit(100)
'''
def run_without_mkdir(command):
    line = b"".join(one.encode() + b"\\0" for one in command)
    with open("/tmp/line", "wb") as file:
        pickle.dump((line, command[5]), file)
    with open("/tmp/lies", "w") as file:
        file.write(LIES)
    rule = seccomp.Rule(("mkdirat",), "SCMP_ACT_ERRNO", EPERM)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(seccomp.compile_profile(seccomp.Profile("SCMP_ACT_ALLOW", syscalls=[rule])))
    short = [command[0], "-I", "-c", "exec(open('/tmp/lies').read())"]
    os.execv(command[0], [*short, "x" * (len(line) - sum(len(one) + 1 for one in short) - 1)])
""",
    ),
    "a file system in which nobody can make folders, under a filter that refuses nothing of it": (
        "03",
        "refuse",
        """
import os
from labkit.syscalls import mount
def run_without_mkdir(command):
    mount("queues", command[5], "mqueue")
    rule = seccomp.Rule(("swapon",), "SCMP_ACT_ERRNO", EPERM)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(seccomp.compile_profile(seccomp.Profile("SCMP_ACT_ALLOW", syscalls=[rule])))
    os.execv(command[0], command)
""",
    ),
    "the program refuses itself": (
        "03",
        "refuse",
        """
import os, subprocess, sys
def run_without_mkdir(command):
    text = command[4].replace("attempt(os.mkdir, os.path.join(folder, \\"one\\"))", "1")
    text = text.replace("attempt(os.mkdir, \\"two\\", dir_fd=here)", "1")
    os.execv(command[0], [*command[:4], text, *command[5:]])
""",
    ),
    "a folder called 1 for a procfs": (
        "06",
        "alone",
        ALONE.format(proc='mount("none", "/proc", "tmpfs"); os.mkdir("/proc/1")'),
    ),
    "the course's own solution, read from the lab's source": (
        "03",
        "refuse",
        """
def run_without_mkdir(command):
    from labkit.course.source import lab_source as source
    names = dict(globals())
    exec(source.solution(source.path_of("03"), "refuse"), names)
    names["run_without_mkdir"](command)
""",
    ),
    "a program of the answer's for the command, which tells PID 1 by a pipe what it would end with": (
        "06",
        "init",
        """
import os, pickle, re, select, sys
LIES = '''
import ctypes, os, pickle, re, signal, sys
line, script, pipe = pickle.load(open("/tmp/line", "rb"))
with open("/proc/self/stat") as file:
    start = int(file.read().rpartition(")")[2].split()[45])
ctypes.memmove(start, line, len(line))
orphan = re.search("do .(sleep [0-9]+) &", script)[1].split()
for _ in range(script.count("x ")):
    if os.fork() == 0:
        if os.fork() == 0:
            os.execvp("sleep", orphan)
        os._exit(0)
    os.wait()
def ends(number, _):
    os.write(pipe, re.search(f"exit ([0-9]+)' {number};", script)[1].encode())
    os._exit(0)
for number in (1, 2, 3, 10, 12, 15):
    signal.signal(number, ends)
while True:
    signal.pause()
'''
def init(command):
    reads, writes = os.pipe()
    line = b"".join(one.encode() + b"\\0" for one in command)
    with open("/tmp/line", "wb") as file:
        pickle.dump((line, command[-1], writes), file)
    with open("/tmp/lies", "w") as file:
        file.write(LIES)
    if os.fork() == 0:
        os.set_inheritable(writes, True)
        short = [sys.executable, "-c", "exec(open('/tmp/lies').read())"]
        os.execv(sys.executable, [*short, "x" * (len(line) - sum(len(one) + 1 for one in short) - 1)])
    while True:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        if select.select([reads], [], [], 0.01)[0]:
            return int(os.read(reads, 100))
""",
    ),
    "a door kept open before it was shut": (
        "07",
        "escape",
        """
import os
KEPT = os.open("/", os.O_RDONLY)
def escape():
    os.fchdir(KEPT)
    os.chroot(".")
""",
    ),
    "a process that waits outside": (
        "07",
        "escape",
        """
import os, signal
if os.fork() == 0:
    signal.pause()
def escape():
    os.getpid()
""",
    ),
    "a folder called 1 in the box's procfs": (
        "07",
        "furnish",
        """
def furnish(root):
    mount("none", f"{root}/proc", "tmpfs")
    os.mkdir(f"{root}/proc/1")
    for name in DEVICES:
        open(f"{root}/dev/{name}", "w").close()
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
""",
    ),
    "a server with all powers answers for one that has none": (
        "11",
        "keep",
        """
import os, socket
from labkit.course.exercises.lab11 import privilege_checks as privilege
def serve(reader):
    folder, port = os.read(reader, 4096).decode().split()
    with socket.create_server(("127.0.0.1", int(port))) as server:
        connection, _ = server.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + open(f"{folder}/index.html", "rb").read())
        connection.close()
    os._exit(0)
def keep():
    reader, writer = os.pipe()
    if os.fork() == 0:
        serve(reader)
    def serve_from(folder, port):
        os.write(writer, f"{folder} {port}".encode())
        import time
        time.sleep(0.5)
    privilege.serve_from = serve_from
    privilege.answer_one = lambda: None
    for number in range(63):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:
            break
    capset(0, 0, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
""",
    ),
    "a relay in place of a route": (
        "10",
        "reach_out",
        f"{RELAY}\ndef reach_out(pid, gateway, subnet):\n    pretend(pid, '203.0.113.0/24', None)\n",
    ),
    "relays in place of a cable": (
        "10",
        "connect",
        f"{RELAY}\ndef connect(left, right, a, b):\n    split(left, right, a, b)\n",
    ),
    "exit codes that are read from the command": ("12", "run", exercise_spec.posed("12", "run").solved + RUN),
    "exit codes that are always the same": (
        "12",
        "pod",
        exercise_spec.posed("12", "pod").solved
        + "\nhonest = pod\ndef pod(*arguments):\n    honest(*arguments)\n    return [137, 137]\n",
    ),
    "an archive that never ends": (
        "08",
        "pack",
        "import os\ndef pack(upper, archive):\n    os.symlink('/dev/zero', archive)\n",
    ),
    "an archive that nobody can read to its end": (
        "08",
        "pack",
        """
import io, tarfile
def pack(upper, archive):
    with tarfile.open(archive, "w:xz") as tar:
        member = tarfile.TarInfo("home/new")
        member.size = 200 << 20
        class Zeros(io.RawIOBase):
            def read(self, length=-1):
                return bytes(length)
        tar.addfile(member, Zeros())
""",
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_it_does_not_pass(name: str) -> None:
    need_rooms()
    lab, exercise, answer = CHEATS[name]
    said = tried(lab, exercise, answer)
    assert said["outcome"] == "not yet", said
    assert said["share"] == 0


def test_the_learners_code_cannot_look_into_those_who_look_at_it() -> None:
    """A process may write into the memory of another one of its user: not into a helper of the check."""
    need_rooms()
    answer = """
import os
def apart(uploads, mib):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            open(f"/proc/{pid}/mem", "r+b").close()
            found.append(int(pid))
        except OSError:
            continue
    raise RuntimeError(f"{len(found)} of {len([one for one in os.listdir('/proc') if one.isdigit()])} processes")
"""
    # Itself, the process that the check shows as the lab host, and the one that holds the mounts.
    assert "RuntimeError: 3 of 9 processes" in tried("02", "apart", answer)["seen"]
