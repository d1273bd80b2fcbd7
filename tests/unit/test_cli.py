"""The commands, and how `./lab test` counts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import errors
from labkit.course.commands import cli, jupyter, open_in_vm, reset
from labkit.course.grading import exam_seed
from labkit.files import state_folder

CHECKOUT = state_folder.checkout()


def test_every_command_is_offered_by_the_script_too() -> None:
    shown = subprocess.run([CHECKOUT / "lab", "--help"], capture_output=True, text=True, check=True).stdout
    for name in cli.COMMANDS:
        assert name == "open" or f"\n  {name} " in shown


def test_unknown_command_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["frobnicate"]) == 2
    assert "there is no 'frobnicate' here" in capsys.readouterr().err
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "doctor" in capsys.readouterr().out


def test_an_error_that_users_can_mend_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(argv: list[str]) -> int:
        raise errors.Unsupported("no such thing", "get one")

    monkeypatch.setattr(reset, "main", fails)
    assert cli.main(["reset"]) == 1
    assert capsys.readouterr().err == "lab: no such thing: get one\n"


def test_outside_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state_folder, "checkout", lambda: tmp_path)
    assert cli.main(["doctor"]) == 1
    assert "git clone" in capsys.readouterr().err


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("rich", "IPython", "jupyterlab", "psutil", "asyncio")
    modules = "labkit.course.commands.cli, labkit.course.commands.jupyter"
    program = f"import sys, {modules}; print([n for n in {heavy} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_jupyter_listens_on_loopback_only_and_keeps_its_token() -> None:
    arguments = jupyter.jupyter_arguments(8890, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in arguments
    assert "--ServerApp.port=8890" in arguments and "--ServerApp.port_retries=0" in arguments
    assert "--no-browser" in arguments
    names = [argument.partition("=")[0] for argument in arguments]  # the values may be paths, named as they like
    assert not any("token" in name or "password" in name for name in names)
    free = [argument.partition("=")[0] for argument in jupyter.jupyter_arguments(None, browser=True)]
    assert not any("port" in name for name in free)


def test_in_a_codespace_its_own_page_is_let_in_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODESPACE_NAME", raising=False)
    assert jupyter.codespace() == []
    monkeypatch.setenv("CODESPACE_NAME", "odd-duck-x7")
    monkeypatch.setenv("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "app.github.dev")
    [argument] = jupyter.codespace()
    assert argument in jupyter.jupyter_arguments(None, browser=False)
    pattern = argument.removeprefix("--ServerApp.allow_origin_pat=")
    assert re.match(pattern, "https://odd-duck-x7-8888.app.github.dev")
    for other in (
        "https://odd-duck-x7-8888.app.github.dev.x.org",
        "https://odd-duck-x7-8888.appXgithub.dev",
        "https://x",
    ):
        assert not re.match(pattern, other)


def test_the_vm_is_asked_about_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    assert jupyter.wants_vm() is False
    assert "./lab doctor says why" in capsys.readouterr().out


def test_where_namespaces_are_refused_the_vm_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[list[str]] = []
    monkeypatch.setattr(jupyter, "can_make_namespaces", lambda: False)
    monkeypatch.setattr(jupyter, "wants_vm", lambda: True)
    monkeypatch.setattr(open_in_vm, "main", opened.append)
    assert jupyter.main(["--port", "0"]) == 0
    assert opened == [["--port", "0"]]


def test_reset_all_asks_first_and_keeps_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    assert reset.main(["--all"]) == 1
    assert "--yes" in capsys.readouterr().err
    for name in ("rootfs/busybox", "kept/1"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("progress.json", exam_seed.NAME):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("/etc")
    assert reset.clear(tmp_path) == ["link", "progress.json", "rootfs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grading-seed", "kept"]
    assert reset.clear(tmp_path / "not there") == []


# --- the readme -------------------------------------------------------------------------------------------------------


def test_the_readme_names_commands_that_exist() -> None:
    text = (CHECKOUT / "README.md").read_text()
    named = {line.split("`./lab ")[1].split("`")[0].split()[0] for line in text.splitlines() if "`./lab " in line}
    assert named <= {*cli.COMMANDS, "setup"}
