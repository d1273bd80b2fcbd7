"""The doctor's judgement on facts that are given to it, and that looking at this machine changes nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from labkit import procfs
from labkit.course.doctor import doctor
from labkit.course.doctor import facts as machine
from labkit.course.doctor.facts import Cgroups, Machine
from labkit.course.doctor.findings import Finding, findings
from labkit.files import state_folder

TRIALS = ("user", "mnt", "uts", "ipc", "pid", "net", "cgroup", "time", "mount", "proc", "overlay", "kvm")
GOOD = Machine(
    system="Debian GNU/Linux 13 (trixie)",
    kernel="6.12.0",
    architecture="x86_64",
    python="3.13.0",
    user="ada",
    uid=1000,
    container="",
    trials=dict.fromkeys(TRIALS, ""),
    sysctls={"user.max_user_namespaces": "15000"},
    seccomp=False,
    subordinate_ids=65536,
    newuidmap=True,
    cgroups=Cgroups("v2", ("cpu", "io", "memory", "pids"), ("cpu", "io", "memory", "pids"), "/user.slice"),
    kvm_device=True,
    vm_kinds={"uml": "", "qemu": ""},
    disk_free_bytes=20_000_000_000,
    memory_bytes=8_000_000_000,
    memory_available_bytes=4_000_000_000,
    rootfs={"busybox": ""},
    kvm_modes={"real": "", "protected": "", "long": ""},
)


def finding(found: Machine, topic: str) -> Finding:
    return next(line for line in findings(found) if line.topic.strip() == topic)


def refusing(why: str, *trials: str, **facts: object) -> Machine:
    return dataclasses.replace(GOOD, trials=GOOD.trials | dict.fromkeys(trials, why), **facts)  # type: ignore[arg-type]


def test_on_a_good_machine_nothing_is_to_mend() -> None:
    found = findings(GOOD)
    assert {line.status for line in found} <= {"yes", "-"}
    assert not any(line.mend for line in found)
    assert not any(lab.lacks for lab in doctor.labs(found))


def test_whatever_is_wrong_has_a_line_that_mends_it() -> None:
    bad = dataclasses.replace(
        GOOD,
        trials=dict.fromkeys(TRIALS, "Operation not permitted"),
        cgroups=Cgroups("v1"),
        kvm_device=False,
        subordinate_ids=0,
        vm_kinds={"uml": "not installed"},
        disk_free_bytes=1,
        memory_available_bytes=1,
        rootfs={},
    )
    for line in findings(bad):
        # A single kind of namespace is mended where the line above it says how.
        assert line.status in ("yes", "-") or line.mend or line.topic.startswith("  "), line
    assert doctor.Report(bad).exit_code == 1


@pytest.mark.parametrize(
    ("facts", "mend"),
    [
        ({"sysctls": {"kernel.unprivileged_userns_clone": "0"}}, "kernel.unprivileged_userns_clone=1"),
        ({"sysctls": {"user.max_user_namespaces": "0"}}, "user.max_user_namespaces="),
        ({"sysctls": {"kernel.apparmor_restrict_unprivileged_userns": "1"}}, "apparmor_restrict_unprivileged_userns=0"),
        ({"seccomp": True, "container": "docker"}, "--privileged"),
        ({}, "./lab --vm"),
    ],
)
def test_why_user_namespaces_are_refused(facts: dict[str, object], mend: str) -> None:
    found = refusing("Operation not permitted", "user", "mnt", "uts", "ipc", "pid", "net", "mount", **facts)
    assert mend in finding(found, "user namespaces").mend
    assert mend in finding(found, "namespaces").mend


def test_apparmor_that_lets_the_namespace_be_made_but_not_used() -> None:
    found = refusing("Permission denied", "mount", sysctls={"kernel.apparmor_restrict_unprivileged_userns": "1"})
    assert finding(found, "user namespaces").status == "no"
    assert finding(found, "namespaces").status == "no"


def test_cgroups() -> None:
    hybrid = dataclasses.replace(GOOD, cgroups=Cgroups("hybrid", ("hugetlb",), ("hugetlb",), "/"))
    assert finding(hybrid, "cgroups").status == "no"
    assert "--vm" in finding(hybrid, "cgroup controllers").mend
    part = dataclasses.replace(GOOD, cgroups=Cgroups("v2", ("cpu", "memory", "pids"), ("pids",), "/user.slice"))
    assert "lacking: cpu memory" in finding(part, "cgroup controllers").seen
    lack = Cgroups(
        "v2", ("cpu", "memory", "pids"), (), "/user.slice", "nothing is delegated", "start with Delegate=yes"
    )
    undelegated = dataclasses.replace(GOOD, cgroups=lack)
    line = finding(undelegated, "cgroup controllers")
    assert line.status == "no" and line.seen.startswith("nothing is delegated") and "Delegate=yes" in line.mend
    lacks = {lab.number: lab.lacks for lab in doctor.labs(findings(undelegated))}
    assert lacks["09"] == ("cgroup controllers",) and lacks["07"] == ()


def test_smaller_lacks() -> None:
    assert "usermod -aG kvm ada" in finding(refusing("Permission denied", "kvm"), "KVM").mend
    hangs = dataclasses.replace(GOOD, kvm_modes={"real": "", "protected": "it does not run them", "long": ""})
    line = finding(hangs, "KVM")
    assert line.status == "partly" and line.seen == "small guests run: real, long mode" and "in software" in line.mend
    assert "modprobe overlay" in finding(refusing("No such device", "overlay"), "overlay").mend
    assert "uidmap" in finding(dataclasses.replace(GOOD, newuidmap=False), "subordinate ids").mend
    assert "--add-subuids" in finding(dataclasses.replace(GOOD, subordinate_ids=0), "subordinate ids").mend
    assert finding(dataclasses.replace(GOOD, lab_hosts=(12, 34)), "lab hosts").seen == "running: 12, 34"
    assert finding(dataclasses.replace(GOOD, rootfs={}), "root filesystems").mend == "./lab setup"


def test_a_root_filesystem_in_which_something_was_changed_is_seen() -> None:
    broken, other = {"busybox": "bin/sh is missing"}, {"busybox": "", "web": "x was added"}
    for changed, status, seen in ((broken, "no", "bin/sh is missing"), (other, "partly", "web: x was added")):
        found = finding(dataclasses.replace(GOOD, rootfs=changed), "root filesystems")
        assert (found.status, found.mend) == (status, "./lab setup")
        assert seen in found.seen


def test_subordinate_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "subuid"
    file.write_text("# comment\nada:100000:65536\n1000:300000:10\nbob:1:1\nada:broken\n")
    monkeypatch.setattr(machine, "_user", lambda _: "ada")
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert machine._subordinate_ids(str(file)) == 65546
    assert machine._subordinate_ids(str(tmp_path / "none")) == 0


def test_every_lab_that_exists_is_known() -> None:
    numbers = {number for number, _, _ in doctor.LABS}
    assert {path.name[:2] for path in (state_folder.checkout() / "labs/source").glob("[0-9]*.md")} <= numbers
    topics = {line.topic.strip() for line in findings(GOOD)}
    for number, _, needs in doctor.LABS:
        assert {need.strip() for need in needs} <= topics, number


def test_it_shows_itself_narrow_and_as_json_and_in_a_notebook() -> None:
    report = doctor.Report(refusing("No [such] device", "overlay"))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    text = console.export_text()
    assert "No [such] device" in text and max(map(len, text.splitlines())) <= 80
    data = json.loads(report.as_json())
    assert data["machine"]["kernel"] == "6.12.0" and len(data["labs"]) == 17
    assert "text/html" in report._repr_mimebundle_((), ())


def own_view() -> tuple[list[int], dict[str, int]]:
    mounts = [mount.mount_id for mount in procfs.mountinfo()]
    return mounts, {kind: procfs.namespace_inode("self", kind) for kind in ("mnt", "uts", "net", "pid", "user")}


def test_examining_this_machine_changes_nothing() -> None:
    before = own_view()
    found = machine.examine()
    assert own_view() == before
    assert set(found.trials) == set(TRIALS)
    assert found.disk_free_bytes > 0 and found.memory_bytes > 0


def test_strict_is_content_with_all_but_what_the_computer_below_decides() -> None:
    short = dict.fromkeys(TRIALS, "") | {"kvm": "No such file or directory"}
    assert doctor.Report(GOOD).lacking() == []
    assert doctor.Report(dataclasses.replace(GOOD, trials=short, kvm_device=False)).lacking() == []
    assert doctor.Report(dataclasses.replace(GOOD, memory_available_bytes=500_000_000)).lacking() == []


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"cgroups": Cgroups("v2", ("cpu", "io"), ("cpu", "memory", "pids"), "/a")}, "the cgroup controller io"),
        (
            {"cgroups": Cgroups("v2", ("cpu",), ("cpu", "io", "pids"), "/a")},
            "cgroup controllers (cpu io pids; lacking: ",
        ),
        ({"subordinate_ids": 0}, "subordinate ids (none"),
        ({"disk_free_bytes": 1000}, "disk (0.0 GB free)"),
        ({"trials": dict.fromkeys(TRIALS, "") | {"user": "Operation not permitted"}}, "user namespaces (Operation not"),
    ],
)
def test_strict_names_what_is_not_there(changes: dict[str, Any], lacking: str) -> None:
    (short,) = doctor.Report(dataclasses.replace(GOOD, **changes)).lacking()
    assert short.startswith(lacking)
