"""`./lab service` where no systemd is at work for this user, and what it writes. A real one runs in the lane vm."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from labkit.course.commands import service
from labkit.errors import Unsupported
from tests.requirements import need_command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(service.IN_SERVICE, raising=False)


def test_the_token_is_for_this_user_only_and_stays() -> None:
    path = service.token_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text()
    assert len(token) == 48
    assert service.token_file().read_text() == token
    assert [file.name for file in path.parent.iterdir()] == ["token"]


def test_the_address_has_the_port_that_leads_here() -> None:
    folder = service.token_file().parent
    assert service.address().startswith("http://127.0.0.1:8888/?token=")
    (folder / "port").write_text("8801\n")
    assert service.address().startswith("http://127.0.0.1:8801/?token=")
    (folder / "reached-at").write_text("9000\n")
    assert service.address().startswith("http://127.0.0.1:9000/?token=")
    assert "--port 8801" in service.unit(Path("/course"))


def test_a_strange_folder_stays_one_word_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "x.service"
    unit.write_text(service.unit(Path('/srv/a b/100%/$HOME/"q"')))
    assert 'ExecStart="/srv/a b/100%%/$HOME/\\"q\\"/lab" --no-browser --no-vm --port 8888\n' in unit.read_text()


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = need_command("systemd-analyze")
    course = tmp_path / "a b 100% $HOME"
    course.mkdir()
    (course / "lab").write_text("#!/bin/sh\n")
    (course / "lab").chmod(0o755)
    unit = tmp_path / service.NAME
    unit.write_text(service.unit(course))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_nothing_runs_where_nothing_was_begun() -> None:
    assert not service.is_running()


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_is_none(port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service.main([f"--port={port}"]) == 2
    assert capsys.readouterr().err == "lab: a port is a number from 1 to 65535.\n"


def test_without_a_systemd_of_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_command("systemctl")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    with pytest.raises(Unsupported) as caught:
        service.start()
    assert "your own systemd does not run" in str(caught.value) and "enable-linger" in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="there is no systemd here"):
        service.start()


def test_root_is_sent_to_lab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service.main([]) == 1
    assert capsys.readouterr().err == "lab: JupyterLab as a service is for an ordinary user; root starts ./lab.\n"
