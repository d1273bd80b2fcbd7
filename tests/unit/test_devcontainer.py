"""The dev container, as far as it can be looked at without a container engine: its keys, its commands, its packages."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labkit.course.setup import debian
from labkit.files import state_folder

CHECKOUT = state_folder.checkout()
FOLDER = CHECKOUT / ".devcontainer"
TEXT = (FOLDER / "devcontainer.json").read_text()

# What devcontainer.json may hold where it names an image, and of which type: the Dev Container specification's schema.
COMMAND = (str, list, dict)
KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "image": str,
    "features": dict,
    "overrideFeatureInstallOrder": list,
    "secrets": dict,
    "forwardPorts": list,
    "portsAttributes": dict,
    "otherPortsAttributes": dict,
    "updateRemoteUserUID": bool,
    "containerEnv": dict,
    "containerUser": str,
    "mounts": list,
    "init": bool,
    "privileged": bool,
    "capAdd": list,
    "securityOpt": list,
    "remoteEnv": dict,
    "remoteUser": str,
    "initializeCommand": COMMAND,
    "onCreateCommand": COMMAND,
    "updateContentCommand": COMMAND,
    "postCreateCommand": COMMAND,
    "postStartCommand": COMMAND,
    "postAttachCommand": COMMAND,
    "waitFor": str,
    "userEnvProbe": str,
    "hostRequirements": dict,
    "customizations": dict,
    "runArgs": list,
    "appPort": (int, str, list),
    "shutdownAction": str,
    "overrideCommand": bool,
    "workspaceFolder": str,
    "workspaceMount": str,
}
PORT_KEYS = {"onAutoForward", "elevateIfNeeded", "label", "requireLocalPort", "protocol"}
HOST_KEYS = {"cpus", "memory", "storage", "gpu"}
COMMANDS = ("onCreateCommand", "postCreateCommand", "postStartCommand")


def parse(text: str) -> dict[str, Any]:
    """JSON with comments, of which only whole lines are allowed here: `//` may be in a string elsewhere."""
    found = json.loads("\n".join("" if line.lstrip().startswith("//") else line for line in text.splitlines()))
    assert isinstance(found, dict)
    return found


def complaints(container: dict[str, Any]) -> list[str]:
    """What a reader of the format would not know or take."""
    wrong = [f"unknown: {key}" for key in container.keys() - KEYS.keys()]
    wrong += [f"type: {key}" for key in container.keys() & KEYS.keys() if not isinstance(container[key], KEYS[key])]
    for port, attributes in container.get("portsAttributes", {}).items():
        wrong += [f"unknown: {port}.{key}" for key in attributes.keys() - PORT_KEYS]
    host = container.get("hostRequirements", {})
    wrong += [f"unknown: hostRequirements.{key}" for key in host.keys() - HOST_KEYS]
    wrong += [
        f"size: {host[key]}" for key in ("memory", "storage") if not re.fullmatch(r"\d+([tgmk]b)?", host.get(key, "1"))
    ]
    if not container.get("image"):
        wrong.append("missing: image")
    return wrong


CONTAINER = parse(TEXT)


def test_a_reader_of_the_format_takes_it() -> None:
    assert complaints(CONTAINER) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"postCreatCommand": "./lab setup"}, "unknown: postCreatCommand"),
        ({"privileged": "true"}, "type: privileged"),
        ({"portsAttributes": {"8888": {"visibility": "private"}}}, "unknown: 8888.visibility"),
        ({"hostRequirements": {"memory": "4 GB"}}, "size: 4 GB"),
        ({"hostRequirements": {"ram": "4gb"}}, "unknown: hostRequirements.ram"),
        ({"image": ""}, "missing: image"),
    ],
)
def test_what_it_would_not_take_is_seen(change: dict[str, Any], complaint: str) -> None:
    assert complaints({**CONTAINER, **change}) == [complaint]


def test_its_commands_are_there() -> None:
    assert CONTAINER["postCreateCommand"] == "./lab setup"
    assert CONTAINER["waitFor"] == COMMANDS[-1]
    for key in COMMANDS:
        words = [word for word in shlex.split(CONTAINER[key]) if word != "sudo"]
        assert os.access(CHECKOUT / words[0], os.X_OK), key


def test_jupyterlabs_port_is_forwarded() -> None:
    assert CONTAINER["forwardPorts"] == [8888] and list(CONTAINER["portsAttributes"]) == ["8888"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_it_installs_what_set_up_wants(machine: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    for name, text in (("apt-get", f'echo "$@" >> {said}'), ("uname", f"echo {machine}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run([FOLDER / "packages.sh"], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)
    update, install = said.read_text().splitlines()
    assert update == "update"
    installed = {word for word in install.split() if not word.startswith("-")} - {"install"}
    qemu = {name for names in debian._QEMU.values() for name in names}
    wanted = debian.PACKAGES.keys() - qemu | debian._QEMU[machine].keys()
    assert installed == wanted | {"python3", "python3-venv"}


def test_without_cgroup_v2_it_says_what_to_do_and_goes_on(tmp_path: Path) -> None:
    script = (FOLDER / "groups.sh").read_text().replace("/sys/fs/cgroup", str(tmp_path))
    assert str(tmp_path) in script
    done = subprocess.run(["sh", "-c", script, "sh", "nobody"], capture_output=True, text=True)
    assert done.returncode == 0 and "use ./lab --vm" in done.stdout and not list(tmp_path.iterdir())
