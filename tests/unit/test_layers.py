"""Imports point only downwards, and every module can be imported alone, by anybody, on any Linux."""

import ast
import compileall
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "labkit"

# A module may import its own layer's "may also" and every layer before it.
LAYERS = [
    {
        "cgroup_errors",
        "privilege_errors",
        "overlay_errors",
        "cgroupfs",
        "arguments",
        "constants",
        "errors",
        "messages",
        "netns",
        "paths",
        "plain",
        "procfs",
        "reaping",
        "syscalls",
        "temporary",
        "tree",
        "descriptors",
        "interrupts",
        "layout",
        "loop",
        "program",
    },
    {
        "hostgroup",
        "idmap",
        "keeper",
        "labhost",
        "ready",
        "sealed",
        "starting",
        "zygote",
        "child",
        "host",
        "output",
        "held",
        "process",
    },
    {
        "namespaces",
        "detached",
        "places",
        "binds",
        "ptrace",
        "tracer",
        "mounts",
        "overlay",
        "layers",
        "changeset",
        "rootfs",
        "capabilities",
        "cgroups",
        "bpf",
        "libseccomp",
        "seccomp",
        "network",
        "kvm",
    },
    {"container"},
    {"vm"},
    {"lab"},
]
# Siblings of one layer that may import each other, because one is made of the other.
WITHIN = {
    "errors": {"constants", "overlay_errors", "privilege_errors", "procfs"},
    "overlay_errors": set[str](),
    "privilege_errors": {"constants"},
    "syscalls": {"constants", "errors"},
    "layout": {"constants"},
    "loop": {"syscalls"},
    "program": {"constants", "errors", "layout", "loop", "messages", "reaping", "syscalls"},
    "reaping": set[str](),
    "plain": {"errors"},
    "arguments": set[str](),
    "paths": set[str](),
    "procfs": set[str](),
    "constants": set[str](),
    "messages": set[str](),
    "netns": {"syscalls"},
    "tree": set[str](),
    "temporary": set[str](),
    "descriptors": {"errors", "syscalls"},
    "interrupts": set[str](),
    "idmap": set[str](),
    "ready": set[str](),
    "hostgroup": set[str](),
    "keeper": {"hostgroup", "ready"},
    "labhost": {"hostgroup"},
    "starting": set[str](),
    "zygote": {"hostgroup", "keeper", "labhost", "ready", "starting"},
    "child": {"starting", "zygote"},
    "sealed": set[str](),
    "host": {"hostgroup", "idmap", "sealed", "zygote"},
    "output": {"zygote"},
    "held": {"host", "output"},
    "process": {"held", "child", "host", "output"},
    "cgroup_errors": set[str](),
    "cgroupfs": set[str](),
    "cgroups": set[str](),
    "namespaces": set[str](),
    "detached": set[str](),
    "places": set[str](),
    "binds": {"places"},
    "ptrace": {"libseccomp"},
    "tracer": {"ptrace"},
    "mounts": {"binds", "detached", "places"},
    "overlay": {"detached"},
    "layers": set[str](),
    "changeset": {"layers"},
    "rootfs": {"mounts", "overlay"},
    "capabilities": set[str](),
    "bpf": set[str](),
    "libseccomp": set[str](),
    "seccomp": {"bpf", "libseccomp"},
    "network": set[str](),
    "kvm": set[str](),
}


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def _others_may_read(path: Path) -> bool:
    """A checkout in root's own home, say, is no place where another user could import from."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents, Path(sys.executable).parent))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _dotted(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """The rooms (`labkit.X`) that a module imports anywhere in it, functions and TYPE_CHECKING blocks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "labkit":
                found |= {f"labkit.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return {_room(name) for name in found if name.startswith("labkit.")}


@pytest.mark.parametrize("path", _modules(), ids=_dotted)
def test_imports_point_downwards(path: Path) -> None:
    room = _room(_dotted(path))
    if not room:
        return
    level = next((number for number, layer in enumerate(LAYERS) if room in layer), None)
    assert level is not None, f"labkit.{room} stands in no layer: give it its place in LAYERS"
    below = set().union(*LAYERS[:level])
    if room == "vm":
        below -= LAYERS[3]  # beside the containers, not above them
    allowed = below | WITHIN.get(room, set()) | {room}
    assert _imports(path) - {""} <= allowed


# An interpreter that has imported nothing yet; a fork of it imports each module whose name comes in, and the answer is
# "EXIT-CODE LENGTH" and what was printed. A new interpreter for each would take three times as long.
IMPORTER = """
import os, sys
user = int(sys.argv[1])
for name in iter(sys.stdin.readline, ""):
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(sink, 1), os.dup2(sink, 2), os.closerange(3, sink + 1)
        if user:
            os.setgid(user), os.setuid(user)
        __import__(name.strip())
        sys.exit()
    os.close(sink)
    with open(source) as file:
        said = file.read()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(said))
    print(said, end="", flush=True)
"""


@pytest.fixture(scope="module")
def importer() -> "Iterator[subprocess.Popen[str]]":
    compileall.compile_dir(PACKAGE, quiet=2)  # nobody may not keep what it compiles, and would do so for each import
    nobody = os.geteuid() == 0 and _others_may_read(ROOT)
    site = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))])
    command = ["/usr/bin/env", "-i", f"PYTHONPATH={site}", "PYTHONDONTWRITEBYTECODE=1"]
    command += [sys.executable, "-c", IMPORTER, "65534" if nobody else "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.mark.parametrize("path", _modules(), ids=_dotted)
def test_imports_alone_and_as_nobody(path: Path, importer: "subprocess.Popen[str]") -> None:
    if path.name == "__main__.py":
        return
    assert importer.stdin and importer.stdout
    importer.stdin.write(f"{_dotted(path)}\n")
    importer.stdin.flush()
    code, length = importer.stdout.readline().split()
    assert (int(code), importer.stdout.read(int(length))) == (0, ""), "an import failed, or printed something"
