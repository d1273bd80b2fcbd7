"""`./lab` before anything is installed: each thing that can be missing gives one line that says what to do."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.course.setup import debian, setup
from labkit.course.setup import environment as setup_venv
from labkit.course.setup import log as setup_log
from labkit.course.setup import rootfs as setup_rootfs
from labkit.files import state_folder

CHECKOUT = state_folder.checkout()
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
NEEDED = ("sh", "cat", "cksum", "uname", "id", "readlink", "awk", "env", "dirname", "basename")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what set-up touches, not set up."""
    copy = tmp_path / "course"
    copy.mkdir()
    for name in ("lab", "pyproject.toml"):
        shutil.copy2(CHECKOUT / name, copy / name)
    for name in ("labkit", "rootfs"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with the few programs that `lab` itself calls, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        program = shutil.which(name)
        assert program, name
        (folder / name).symlink_to(program)
    return folder


def python_that_says(folder: Path, name: str, text: str) -> None:
    """A fake interpreter: it answers the probe of `lab` with `text`."""
    fake = folder / name
    fake.write_text(f"#!/bin/sh\ncat >/dev/null\necho {text}\n")
    fake.chmod(0o755)


def lab(
    checkout: Path, *words: str, path: Path | str | None = None, shell: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `./lab` as a user who is not root would, with nothing to read."""
    env = {"PATH": str(path or os.environ["PATH"]), "HOME": str(checkout.parent), "TERM": "dumb"} | environment
    prefix = {"": [], "busybox": [str(shutil.which("busybox")), "sh"]}.get(shell, [str(shutil.which(shell))])
    return subprocess.run(
        [*prefix, str(checkout / "lab"), *words],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def only_line(run: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failure says, on standard error."""
    assert run.returncode != 0
    assert "Traceback" not in run.stdout + run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    return lines[0]


def without_system_python(checkout: Path) -> None:
    """`lab` also looks at the usual absolute places; take them out for a test that has no Python."""
    script = checkout / "lab"
    lines = [line for line in script.read_text().splitlines(keepends=True) if "/usr/local/bin/python3 /usr" not in line]
    text = "".join(lines).replace("python3.12 python3.11 \\\n", "python3.12 python3.11; do\n")
    script.write_text(text)


@pytest.mark.parametrize("shell", SHELLS)
def test_help_and_unknown_command_in_every_shell(checkout: Path, shell: str) -> None:
    shown = lab(checkout, "--help", shell=shell)
    assert shown.returncode == 0 and "./lab COMMAND" in shown.stdout
    assert only_line(lab(checkout, "frobnicate", shell=shell)) == (
        "lab: there is no command 'frobnicate'. ./lab --help lists them."
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_no_python(checkout: Path, programs: Path, shell: str) -> None:
    without_system_python(checkout)
    line = only_line(lab(checkout, "setup", path=programs, shell=shell))
    assert "needs Python 3.11" in line and "found none" in line


def test_no_python_says_the_apt_line_where_there_is_apt(checkout: Path, programs: Path) -> None:
    without_system_python(checkout)
    (programs / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (programs / "apt-get").chmod(0o755)
    line = only_line(lab(checkout, "setup", path=programs))
    assert "apt-get install python3 python3-venv" in line


def test_python_too_old(checkout: Path, programs: Path) -> None:
    without_system_python(checkout)
    python_that_says(programs, "python3", "3 3.9.2 /usr/bin/python3.9")
    line = only_line(lab(checkout, "setup", path=programs))
    assert "needs Python 3.11 or newer; the newest here is 3.9.2" in line


def test_a_better_interpreter_is_preferred(checkout: Path, programs: Path) -> None:
    """One without venv comes after one with, and one that answers nothing is passed over."""
    without_system_python(checkout)
    python_that_says(programs, "python3", "1 3.11.2 /nonexistent/python3.11")
    chosen = programs / "chosen"
    chosen.write_text('#!/bin/sh\necho "chosen: $3"\nexit 7\n')
    chosen.chmod(0o755)
    python_that_says(programs, "python3.13", f"0 3.13.0 {chosen}")
    (programs / "python3.14").write_text("#!/bin/sh\nexit 127\n")
    (programs / "python3.14").chmod(0o755)
    run = lab(checkout, "setup", path=programs)
    assert run.returncode == 7
    assert run.stdout.startswith("chosen: ") and run.stdout.strip().endswith("setup.py")


def test_not_linux(checkout: Path, programs: Path) -> None:
    (programs / "uname").unlink()
    (programs / "uname").write_text("#!/bin/sh\necho Darwin\n")
    (programs / "uname").chmod(0o755)
    assert "vagrant up" in only_line(lab(checkout, "setup", path=programs))


def test_incomplete_checkout(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    run = lab(checkout, "setup")
    assert run.returncode != 0 and "Clone it again" in run.stderr.splitlines()[-1]


def stamp_of(checkout: Path) -> str:
    """What `lab` compares: the same command."""
    files = [
        "pyproject.toml",
        "rootfs/busybox/build.py",
        *sorted(f"labkit/course/setup/{p.name}" for p in (checkout / "labkit/course/setup").glob("*.py")),
    ]
    sums = subprocess.run(["cksum", *files], cwd=checkout, capture_output=True, text=True, check=True).stdout
    return f"{sums}{checkout}"


def finished(checkout: Path) -> Path:
    """Makes a checkout look set up, with an interpreter that only says how it was called."""
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").write_text('#!/bin/sh\necho "python $*"\n')
    (venv / "bin/python").chmod(0o755)
    (venv / "labkit-stamp").write_text(stamp_of(checkout) + "\n")
    root = checkout / ".lab/rootfs/busybox/bin"
    root.mkdir(parents=True)
    (root / "busybox").touch()
    return venv


@pytest.mark.parametrize("shell", SHELLS)
def test_second_start_sets_nothing_up(checkout: Path, shell: str) -> None:
    finished(checkout)
    run = lab(checkout, "--no-browser", shell=shell)
    assert run.stdout == f"python -I {checkout}/labkit/course/commands/jupyter.py --no-browser\n"
    build = (
        f"python -I -B {checkout}/rootfs/debian/build_debian.py {checkout}/.lab/rootfs file database application web\n"
    )
    kernels = "python -P -m labkit.vm.fetch\n"
    rootfs = f"python -I -B {checkout}/labkit/course/setup/setup.py --state {checkout}/.lab --rootfs\n"
    assert lab(checkout, "setup", shell=shell).stdout == rootfs + build + kernels + "Everything is set up.\n"
    assert (
        lab(checkout, "doctor", "--json", shell=shell).stdout == "python -P -m labkit.course.commands doctor --json\n"
    )


def test_second_start_needs_no_python_on_the_path(checkout: Path, programs: Path) -> None:
    finished(checkout)
    assert lab(checkout, "doctor", path=programs).stdout == "python -P -m labkit.course.commands doctor\n"


def test_by_a_link_and_from_a_folder_with_spaces(checkout: Path, tmp_path: Path) -> None:
    moved = tmp_path / "my course; $HOME"
    checkout.rename(moved)
    finished(moved)
    (tmp_path / "link").symlink_to(moved / "lab")
    run = subprocess.run([tmp_path / "link", "doctor"], capture_output=True, text=True, timeout=60, cwd="/")
    assert run.stdout == "python -P -m labkit.course.commands doctor\n"


@pytest.mark.parametrize("change", ["pyproject.toml", "rootfs/busybox/build.py", "labkit/course/setup/environment.py"])
def test_a_change_sets_up_again(checkout: Path, programs: Path, change: str) -> None:
    finished(checkout)
    with open(checkout / change, "a") as file:
        file.write("# changed\n")
    without_system_python(checkout)
    assert "needs Python" in only_line(lab(checkout, "doctor", path=programs))  # that is, it would set up


def test_under_sudo_it_goes_back_to_the_caller(checkout: Path, programs: Path) -> None:
    finished(checkout)
    for name, text in {"id": "echo 0", "setpriv": 'echo "setpriv $*; $HOME $USER ${SUDO_UID-gone}"'}.items():
        (programs / name).unlink(missing_ok=True)
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    run = lab(checkout, "doctor", path=programs, SUDO_UID="0012345", SUDO_GID="54321", SUDO_USER="ada")
    assert "going on as ada" in run.stdout
    lines = [line for line in run.stdout.splitlines() if line.startswith("setpriv")]
    assert lines and f"--reuid=0012345 --regid=54321 --init-groups -- {checkout}/lab doctor; " in lines[0]
    assert lines[0].endswith(" ada gone")


def test_root_with_sudo_variables_of_root_stays_root(checkout: Path, programs: Path) -> None:
    finished(checkout)
    run = lab(checkout, "doctor", path=programs, SUDO_UID="0", SUDO_USER="root")
    assert run.stdout == "python -P -m labkit.course.commands doctor\n"


def test_a_root_filesystem_that_was_changed_is_built_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "rootfs/busybox"
    setup.repair_rootfs(tmp_path)
    assert setup_rootfs.lack(tmp_path) == ""
    capsys.readouterr()
    setup.repair_rootfs(tmp_path)
    assert capsys.readouterr().out == "", "nothing is to be done, and nothing to be said"
    for damage in (
        lambda: shutil.rmtree(root / "bin"),
        (root / "bin/sh").unlink,
        lambda: (root / "etc/passwd").write_text(""),
        (root / "b1").touch,
        (tmp_path / "rootfs/busybox.files").unlink,
        (tmp_path / "rootfs/busybox.stamp").unlink,
        lambda: shutil.rmtree(root),
    ):
        damage()
        assert setup_rootfs.lack(tmp_path)
        setup.repair_rootfs(tmp_path)
        assert setup_rootfs.lack(tmp_path) == ""
        assert "root filesystem" in capsys.readouterr().out


# --- set-up itself ----------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> setup_log.Log:
    return setup_log.Log(tmp_path / "log/setup.log")


@pytest.mark.parametrize("live", [True, False])
def test_a_step_that_takes_long_is_not_silent(
    log: setup_log.Log, live: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup_log, "SILENCE_SECONDS", 0.01)
    log.live = live
    said: list[str] = []

    def work() -> str:
        while not any("0 s" in text for text in said):
            said.append(capsys.readouterr().out)
        return "done"

    log.step("a long one", work)
    assert "done" in capsys.readouterr().out


def absent() -> bool:
    return False


def test_missing_packages_as_a_user_give_the_line_to_type(log: setup_log.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/apt-get")
    shown = debian.system_packages({"uidmap": absent}, log)
    assert shown == "to have everything, type: sudo apt-get install uidmap"
    with pytest.raises(setup_log.SetupError, match=r"Type: sudo apt-get install python3\.11-venv"):
        debian.system_packages({}, log, needed=["python3.11-venv"])


def test_without_apt(log: setup_log.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert "no apt here" in debian.system_packages({"uidmap": absent}, log)
    with pytest.raises(setup_log.SetupError, match="with your package tool"):
        debian.system_packages({}, log, needed=["python3.11-venv"])


def test_an_interpreter_without_venv_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert debian.venv_package() == f"python3.{sys.version_info.minor}-venv"


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("[Errno -3] Temporary failure in name resolution", "Check the network"),
        ("ERROR: Could not find a version that satisfies the requirement x (from versions: none)", "Check the network"),
        ("error: something else", "pip could not install"),
    ],
)
def test_what_pip_says_becomes_one_line(tmp_path: Path, log: setup_log.Log, printed: str, line: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f"#!/bin/sh\necho '{printed}'\nexit 1\n")
    (tmp_path / "bin/python").chmod(0o755)
    with pytest.raises(setup_log.SetupError, match=line):
        setup_venv.install(tmp_path, "", log)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(setup_log.SetupError, match="cannot be written to by"):
        setup.check_folder(tmp_path)


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(setup_log.SetupError, match="1 MB free; set-up needs about 500 MB"):
        setup.check_folder(tmp_path)


def test_an_unfinished_environment_is_begun_again_and_a_strange_one_kept(
    tmp_path: Path, log: setup_log.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "run", lambda argv, **_: 0)
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / "someone's").touch()
    setup_venv.make_venv(venv, log, -1)
    kept = list(tmp_path.glob(".venv.before-labkit-*"))
    assert len(kept) == 1 and (kept[0] / "someone's").exists()
    assert (venv / "labkit-unfinished").exists()
    (venv / "half").touch()
    setup_venv.make_venv(venv, log, -1)
    assert not (venv / "half").exists()
    assert len(list(tmp_path.glob(".venv*"))) == 2


def test_a_finished_environment_of_this_place_is_kept(
    tmp_path: Path, log: setup_log.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "run", lambda argv, **_: 0)
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").touch()
    (venv / "labkit-stamp").write_text(f"sums\n{CHECKOUT}\n")
    assert setup_venv.make_venv(venv, log, -1) == "there already"
    assert not (venv / "labkit-stamp").exists(), "while it is brought up to date it does not count as finished"
    (venv / "labkit-unfinished").write_text("sums\n/another/place\n")
    (venv / "labkit-unfinished").rename(venv / "labkit-stamp")
    setup_venv.make_venv(venv, log, -1)
    assert not (venv / "bin").exists(), "an environment that was moved here does not work here"


@pytest.fixture
def held_lock(tmp_path: Path) -> Iterator[Path]:
    fd = setup.take_lock(tmp_path)
    yield tmp_path
    os.close(fd)


def test_two_set_ups_wait_for_each_other(held_lock: Path) -> None:
    program = "import pathlib, sys; from labkit.course.setup import setup; setup.take_lock(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen(
        [sys.executable, "-c", program, held_lock], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as second:
        assert second.stdout
        assert "waiting" in second.stdout.readline()
        assert second.poll() is None
        second.kill()


def test_port_in_use_is_one_line() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        serve = CHECKOUT / "labkit/course/commands/jupyter.py"
        run = subprocess.run(
            [sys.executable, "-I", serve, "--no-browser", "--no-vm", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert f"port {port} of 127.0.0.1 is in use" in only_line(run)
