"""Imports point only downwards, and every module can be imported alone, by anybody, on any Linux."""

import compileall
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "labkit"

# What a lab host's zygote and a container's start are made of, and what these must not load: each page of the zygote is
# one that a child's first moment copies, and a command that starts a container pays for every import.
LIGHT = (
    "labkit.host.zygote",
    "labkit.launch.launcher",
    "labkit.program",
    "labkit.mounts",
    "labkit.overlay",
    "labkit.capabilities",
    "labkit.seccomp.seccomp",
)
HEAVY = ("asyncio", "dataclasses", "inspect", "logging", "ssl", "subprocess", "typing")


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


@pytest.mark.parametrize("module", LIGHT)
def test_a_start_loads_little(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    environ = {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


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
