"""`./lab` as it is typed: misspelt, twice at once, where nothing can be written, with next to no descriptors."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit.files import state_folder
from tests.requirements import need_root

CHECKOUT = state_folder.checkout()
LAB = str(CHECKOUT / "lab")


@pytest.fixture(scope="module", autouse=True)
def set_up() -> None:
    """After a change of what set-up goes by, the first `./lab` says that it sets up."""
    subprocess.run([LAB, "doctor"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=900)


@pytest.fixture
def environ(busybox: Path, tmp_path: Path) -> dict[str, str]:
    """A state and a home of its own, with what is built already."""
    for name in ("state", "home"):
        (tmp_path / name).mkdir()
    for name in state_folder.BUILT:
        (tmp_path / "state" / name).symlink_to(busybox.parents[1] / name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "LABKIT"))}
    return kept | {"LABKIT_STATE": str(tmp_path / "state"), "HOME": str(tmp_path / "home")}


def said(command: list[str] | str, environ: dict[str, str], code: int = 0) -> str:
    """What a command says, on both streams."""
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        executable="/bin/bash" if isinstance(command, str) else None,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert done.returncode == code, text
    return text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prot", "9000"], "there is no '--prot' here; did you mean '--port'?"),
        (["--prot=9000"], "did you mean '--port'?"),
        (["--no-browsr"], "did you mean '--no-browser'?"),
        (["doctr"], "there is no 'doctr' here; did you mean 'doctor'?"),
        (["doctor", "--jsn"], "did you mean '--json'?"),
        (["reset", "--al"], "did you mean '--all'?"),
        (["test", "--quik"], "did you mean '--quick'?"),
        (["vm", "--lst"], "did you mean '--list'?"),
        (["service", "--stp"], "did you mean '--stop'?"),
        (["grade", "--sede", "1", "x"], "did you mean '--seed'?"),
        (["bench", "--round"], "did you mean '--rounds'?"),
        (["release", "--chek"], "did you mean '--check'?"),
        (["setup", "--verbose"], "setup takes no '--verbose'"),
    ],
)
def test_a_misspelt_word_is_refused_with_the_right_spelling(
    words: list[str], told: str, environ: dict[str, str]
) -> None:
    text = said([LAB, *words], environ, 1 if words[0] == "setup" else 2)
    assert told in text
    assert len(text.splitlines()) == 1


def test_help_for_set_up_sets_nothing_up(environ: dict[str, str]) -> None:
    assert said([LAB, "setup", "--help"], environ).startswith("Usage: ./lab setup\n")


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        (f"{LAB} doctor > /dev/full", 1, "lab: No space left on device."),
        (f"{LAB} doctor --json > /dev/full", 1, "lab: No space left on device."),
        (f"{LAB} doctor | true", 0, ""),
        (f"unset HOME; {LAB} doctor", 0, "root filesystems"),
        (f"ulimit -n 20; {LAB} doctor", 0, "root filesystems"),
    ],
)
def test_where_little_is_there_no_traceback(how: str, code: int, told: str, environ: dict[str, str]) -> None:
    assert told in said(how, environ, code)


def serve(environ: dict[str, str], *words: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-I",
        str(CHECKOUT / "labkit/course/commands/jupyter.py"),
        "--no-browser",
        "--no-vm",
        *words,
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def read_until(process: "subprocess.Popen[str]", pattern: str, seconds: float = 90) -> str:
    assert process.stdout
    text, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 1)[0]:
            data = os.read(process.stdout.fileno(), 65536).decode()
            text += data
            if re.search(pattern, text) or not data:
                return text
    pytest.fail(f"no {pattern!r} in {text!r}")


@contextmanager
def ended(*processes: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:  # asked to end while it began
                process.kill()
                process.communicate()


def test_a_second_lab_in_a_checkout_says_where_the_first_one_is(environ: dict[str, str]) -> None:
    """Begun at the same moment: one opens the course, the other tells its address, and the token works."""
    first, second = serve(environ), serve(environ)
    with ended(first, second):
        texts = {one: read_until(one, r"http://127\.0\.0\.1:\d+/lab\S*token=\w+") for one in (first, second)}
        told = [one for one, text in texts.items() if "open already" in text]
        assert len(told) == 1, texts
        assert told[0].wait(timeout=60) == 0
        address = re.search(r"http://\S+", texts[told[0]])
        assert address
        status = address[0].replace("/lab?", "/api/status?")
        with urllib.request.urlopen(status, timeout=60) as answer:
            assert "kernels" in json.load(answer)
    # And when that one has ended, the next one opens it.
    third = serve(environ)
    with ended(third):
        assert "open already" not in read_until(third, "http://127")


def test_a_checkout_that_cannot_be_written_to_says_so_first(environ: dict[str, str], tmp_path: Path) -> None:
    need_root()
    shutil.copytree(CHECKOUT / "labkit", tmp_path / "course/labkit", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "course/labs").mkdir()
    command = [sys.executable, "-B", "-I", str(tmp_path / "course/labkit/course/commands/jupyter.py"), "--no-browser"]
    readonly = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@"']
    text = said([*readonly, str(tmp_path / "course"), *command], environ, 1)
    assert "cannot be written to" in text and "cp -r" in text
    assert len(text.splitlines()) == 1
