"""The floor: a small C program (`floor.c`) that starts the same container and does nothing else.

It is compiled when it is needed, with the paths and capabilities that labkit uses. It runs as a process of its own that
takes its own time, so that nothing is charged to it but what the kernel needs.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.sampling import Sample
from labkit import capabilities, rootfs

SOURCE = Path(__file__).with_name("floor.c")


def compiler() -> str | None:
    """The C compiler to use; None where there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(work: Path) -> Path:
    """Compile it into the folder `work`. RuntimeError: it could not be."""
    program, cc = work / "floor", compiler()
    if cc is None:
        raise RuntimeError("there is no C compiler here (apt-get install gcc libc6-dev)")

    def paths(listed: Sequence[str]) -> str:
        return ",".join(f'"{path}"' for path in listed)

    given = {
        "READONLY": paths(rootfs.READONLY),
        "MASKED": paths(rootfs.MASKED),
        "KEPT": f"{capabilities.mask(capabilities.DEFAULT)}ULL",
    }
    defines = [f"-D{name}={value}" for name, value in given.items()]
    done = subprocess.run([cc, "-O2", "-Wall", *defines, str(SOURCE), "-o", str(program)], capture_output=True)
    if done.returncode:
        raise RuntimeError(f"floor.c could not be compiled: {done.stderr.decode().strip().splitlines()[-1]}")
    return program


class Floor:
    """The program, running. As a context manager it ends on leaving, and its containers with it."""

    def __init__(self, program: Path, root: Path, command: Sequence[str], filter_file: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [str(program), str(root), str(filter_file or "-"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={"PATH": os.defpath},
        )

    def run(self, _: int = 0) -> Sample:
        """Run the command in a container to its end."""
        code, wall_nsec, cpu_usec = self._ask(b"r")
        if code:
            raise RuntimeError(f"the C program's container ended with exit code {code}")
        return Sample(wall_nsec / 1e9, cpu_usec / 1e6)

    def start(self, _: int = 0) -> int:
        """Leave the command running in a container; return its PID."""
        return self._ask(b"s")[0]

    def _ask(self, letter: bytes) -> list[int]:
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            self._process.stdin.write(letter)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            said = self._process.stderr.read().decode().strip()
            raise RuntimeError(f"the C program failed: {said or 'it said nothing'}")
        return [int(word) for word in line.split()]

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
