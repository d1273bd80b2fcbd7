"""The Vagrantfile as Vagrant reads it, for each provider. Whether machines of it work is tested in the lane vm."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labkit.files import state_folder
from tests.requirements import need_command, need_vagrant

PROVIDERS = ["parallels", "vmware_desktop", "libvirt", "virtualbox", "qemu"]  # whichever is installed, in this order


def vagrant(home: Path, *argv: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Vagrant, or Ruby with Vagrant in it, at the checkout; what it keeps goes to `home`."""
    need_vagrant()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LABKIT_", "VAGRANT_", "RUBY"))}
    places = {"HOME": str(home), "VAGRANT_HOME": str(home / "vagrant"), "VAGRANT_DOTFILE_PATH": str(home / "dot")}
    return subprocess.run(
        [need_command("vagrant" if argv[0] == "vagrant" else "ruby"), *argv[1:]],
        cwd=state_folder.checkout(),
        env=kept | places | {"VAGRANT_CHECKPOINT_DISABLE": "1"} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )


def read(home: Path, **settings: str) -> dict[str, Any]:
    done = vagrant(
        home, "ruby", str(Path(__file__).with_name("vagrantfile.rb")), str(state_folder.checkout()), **settings
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As it is without any setting."""
    return read(tmp_path_factory.mktemp("vagrant"))


def test_vagrant_finds_nothing_wrong(tmp_path: Path) -> None:
    done = vagrant(tmp_path, "vagrant", "validate", "--ignore-provider", VAGRANT_NO_PLUGINS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


def test_all_providers_are_there(usual: dict[str, Any]) -> None:
    assert usual["order"] == PROVIDERS


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_port_is_open_to_others(usual: dict[str, Any], provider: str) -> None:
    """Vagrant opens a port on every interface of the computer, unless it is told which."""
    ports = usual["seen"][provider]["ports"]
    assert {port["id"] for port in ports} == {"ssh", "jupyterlab"}
    assert [port["host_ip"] for port in ports] == ["127.0.0.1"] * 2
    (door,) = (port for port in ports if port["id"] == "jupyterlab")
    assert (door["host"], door["guest"]) == (8888, 18888)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_box_is_one_that_the_provider_has(usual: dict[str, Any], provider: str) -> None:
    expected = "cloud-image/debian-13" if provider in ("libvirt", "qemu") else "bento/debian-13"
    assert usual["seen"][provider]["box"] == expected


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_course_is_shared(usual: dict[str, Any], provider: str) -> None:
    (folder,) = usual["seen"][provider]["folders"].values()
    assert (folder["hostpath"], folder["guestpath"]) == (".", "/vagrant")
    # Where the provider has no shared folders of its own, Vagrant would take NFS, which asks for root here.
    assert folder.get("type") == ("rsync" if provider in ("libvirt", "qemu") else None)
    if folder.get("type") == "rsync":
        assert {".venv*/", ".lab/", ".vagrant/"} <= set(folder["rsync__exclude"])


def test_settings_reach_every_provider(tmp_path: Path) -> None:
    found = read(tmp_path, LABKIT_MEMORY="3072", LABKIT_CPUS="3", LABKIT_BOX="my/box", LABKIT_PORT="9000")["seen"]
    assert {seen["box"] for seen in found.values()} == {"my/box"}
    assert {port["host"] for seen in found.values() for port in seen["ports"] if port["id"] != "ssh"} == {9000}
    settings = {name: seen["settings"] for name, seen in found.items()}
    assert (settings["libvirt"]["memory"], settings["libvirt"]["cpus"]) == (3072, 3)
    assert (settings["parallels"]["memory"], settings["parallels"]["cpus"]) == (3072, 3)
    assert (settings["qemu"]["memory"], settings["qemu"]["smp"]) == ("3072M", "3")
    orders = [words[1:] for _, words in settings["virtualbox"]["customizations"]]
    assert ["id", "--memory", "3072"] in orders and ["id", "--cpus", 3] in orders


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False)])
def test_nesting_is_as_one_wishes(tmp_path: Path, value: str, expected: bool) -> None:
    found = read(tmp_path, LABKIT_NESTED=value)["seen"]
    assert found["libvirt"]["settings"]["nested"] is expected
    orders = [words for _, words in found["virtualbox"]["settings"]["customizations"]]
    assert (["modifyvm", "id", "--nested-hw-virt", "on"] in orders) is expected


@pytest.mark.parametrize(
    ("setting", "value"), [("LABKIT_MEMORY", "2G"), ("LABKIT_MEMORY", "2"), ("LABKIT_CPUS", "0"), ("LABKIT_PORT", "80")]
)
def test_a_setting_that_makes_no_sense(tmp_path: Path, setting: str, value: str) -> None:
    done = vagrant(tmp_path, "vagrant", "validate", VAGRANT_NO_PLUGINS="1", **{setting: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{setting} is a number from ") and done.stderr.endswith(f"not '{value}'.\n")
