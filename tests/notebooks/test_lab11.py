"""Lab 11: each likely mistake gets its own message, and other right ways than the course's pass."""

import shutil
from pathlib import Path

import pytest

from labkit import bpf, capabilities, host, procfs, rootfs
from labkit.course.authoring.trial import attempt, defined_in
from labkit.course.exercises.lab11 import filter_checks, kernel_answers, privilege_checks
from labkit.course.framework.outcomes import NotAttempted, NotChecked, NotYet, Passed
from labkit.process import run_in_child
from tests.requirements import machine_cannot

BECOME = """
def become_root(uid, gid):
    unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
"""
KEEP = """
def keep():
    needed = capabilities.mask(("NET_BIND_SERVICE", "SYS_CHROOT"))
    for number in range(len(capabilities.NAMES)):
        if not needed >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    capset(needed, needed, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
"""
REFUSE = '''
def write_filter(call, last):
    return f"""
            ld [arch]
            jeq #{MACHINE}, ours, kill
    ours:   ld [nr]
            jgt #{last}, unknown
            jeq #{call}, refused
            ret allow
    refused: ret errno #EPERM
    unknown: ret errno #ENOSYS
    kill:   ret kill_process
    """
'''


def changed(code: str, old: str, new: str = "") -> str:
    """`code` with one line, or a part of one, exchanged."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


MISTAKES = {
    # become
    "no namespace": ("become", changed(BECOME, "    unshare(CLONE_NEWUSER)\n"), "still in the user namespace in which"),
    "nothing at all": ("become", "def become_root(uid, gid):\n    os.getuid()\n", "that it began in"),
    "another namespace": (
        "become",
        changed(BECOME, "CLONE_NEWUSER", "CLONE_NEWUTS"),
        "CAP_SYS_ADMIN",
    ),
    "no maps": ("become", "def become_root(uid, gid):\n    unshare(CLONE_NEWUSER)\n", "`uid_map` is empty"),
    "the wrong way round": ("become", changed(BECOME, 'f"0 {uid} 1"', 'f"{uid + 1} 0 2"'), "`inside outside count`"),
    "more than one": ("become", changed(BECOME, 'f"0 {uid} 1"', 'f"0 {uid} 65536"'), "one id: your own"),
    "somebody else": ("become", changed(BECOME, 'f"0 {uid} 1"', 'f"0 {uid + 1} 1"'), "one id: your own"),
    "no setgroups": ("become", changed(BECOME, '("setgroups", "deny"), '), "still says `allow`"),
    "setgroups too late": (
        "become",
        """
def become_root(uid, gid):
    unshare(CLONE_NEWUSER)
    for name, text in (("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"), ("setgroups", "deny")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
""",
        "still says `allow`",
    ),
    "another group": ("become", changed(BECOME, 'f"0 {gid} 1"', 'f"0 {gid + 1} 1"'), "Is a number other than that"),
    "no groups": ("become", changed(BECOME, ', ("gid_map", f"0 {gid} 1")'), "the group is not"),
    "the same inside": (
        "become",
        changed(changed(BECOME, 'f"0 {uid} 1"', 'f"7 {uid} 1"'), 'f"0 {gid} 1"', 'f"7 {gid} 1"'),
        "inside you are user 7",
    ),
    "given up again": (
        "become",
        BECOME + "    capset(0, 0, 0)\n",
        "capabilities are gone again",
    ),
    "not a line": ("become", changed(BECOME, 'f"0 {uid} 1"', '"root"'), "Invalid argument"),
    # keep
    "kept everything": ("keep", "def keep():\n    os.getpid()\n", "that it began with"),
    "capset first": (
        "keep",
        """
def keep():
    needed = capabilities.mask(("NET_BIND_SERVICE", "SYS_CHROOT"))
    capset(needed, needed, 0)
    for number in range(len(capabilities.NAMES)):
        if not needed >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
""",
        "SETPCAP. So it comes first",
    ),
    "only effective": (
        "keep",
        changed(
            KEEP, "capset(needed, needed, 0)", "capset(needed, capabilities.mask(capabilities.of('self').permitted), 0)"
        ),
        "not effective, but still permitted",
    ),
    "one too many": ("keep", changed(KEEP, '"SYS_CHROOT"', '"SYS_CHROOT", "NET_ADMIN"'), "still has NET_ADMIN"),
    "Docker's": (
        "keep",
        changed(KEEP, '("NET_BIND_SERVICE", "SYS_CHROOT")', "capabilities.DEFAULT"),
        "and 9 more, and the server does nothing that takes them",
    ),
    "no port": ("keep", changed(KEEP, '"NET_BIND_SERVICE", '), "could not listen on port"),
    "no chroot": ("keep", changed(KEEP, '"NET_BIND_SERVICE", "SYS_CHROOT"', '"NET_BIND_SERVICE",'), "not call chroot"),
    "nothing kept": ("keep", changed(KEEP, '("NET_BIND_SERVICE", "SYS_CHROOT")', "()"), "It has: nothing"),
    "inheritable": (
        "keep",
        changed(KEEP, "capset(needed, needed, 0)", "capset(needed, needed, needed)"),
        "inheritable",
    ),
    "bounding untouched": (
        "keep",
        """
def keep():
    needed = capabilities.mask(("NET_BIND_SERVICE", "SYS_CHROOT"))
    capset(needed, needed, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
""",
        "its bounding set holds",
    ),
    "no no_new_privs": ("keep", changed(KEEP, "    prctl(PR_SET_NO_NEW_PRIVS, 1)\n"), "NoNewPrivs is still 0"),
    "a wrong name": ("keep", changed(KEEP, "SYS_CHROOT", "CHROOT"), "there is no capability called 'CHROOT'"),
    # refuse
    "allows all": ("refuse", 'def write_filter(call, last):\n    return "ret allow"\n', "allows `"),
    "no arch": (
        "refuse",
        changed(REFUSE, "            ld [arch]\n            jeq #{MACHINE}, ours, kill\n"),
        "gets past the filter",
    ),
    "arch ignored": ("refuse", changed(REFUSE, "ours, kill", "ours, ours"), "gets past the filter"),
    "nr not loaded": ("refuse", changed(REFUSE, "ours:   ld [nr]", "ours:"), "says `errno ENOSYS`"),
    "killed": ("refuse", changed(REFUSE, "ret errno #EPERM", "ret kill_process"), "It was to be told EPERM"),
    "the wrong errno": ("refuse", changed(REFUSE, "ret errno #EPERM", "ret errno #EACCES"), "says `errno EACCES` to"),
    "unknown allowed": ("refuse", changed(REFUSE, "            jgt #{last}, unknown\n"), "and your filter allows it"),
    "unknown refused": ("refuse", changed(REFUSE, "ret errno #ENOSYS", "ret errno #EPERM"), "gets `errno EPERM`"),
    "one unknown": ("refuse", changed(REFUSE, "jgt #{last}, unknown", "jeq #999, unknown"), "filter allows it"),
    "the last one": ("refuse", changed(REFUSE, "jgt", "jge"), "greater, or equal"),
    "labels exchanged": (
        "refuse",
        changed(REFUSE, "jeq #{call}, refused", "jeq #{call}, out, refused\nout:"),
        "allows `",
    ),
    "refuses the rest": ("refuse", changed(REFUSE, "ret allow", "ret errno #EPERM"), "is refused, and so are"),
    "a jump back": ("refuse", changed(REFUSE, "ret allow", "jeq #0, ours\n            ret allow"), "is behind it"),
    "a call nobody knows": ("refuse", changed(REFUSE, "#{call}", "#{call}x"), "stands for no number"),
    "no ret": ("refuse", 'def write_filter(call, last):\n    return "ld [nr]"\n', "must be a ret"),
    "not a text": ("refuse", "def write_filter(call, last):\n    return 5\n", "returned int"),
    "beyond the input": ("refuse", changed(REFUSE, "ld [nr]", "ld [64]"), "input has words at 0 to 60"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    # Where setgroups is denied on the lab host, it is denied from the beginning in all namespaces below.
    if "setgroups" in mistake and Path(f"/proc/{host.pid()}/setgroups").read_text() == "deny\n":
        if mistake == "no setgroups":
            machine_cannot("change groups on the lab host of a user without subordinate ids")
        words = "`setgroups` can be written only before `gid_map`"
    outcome = attempt("11", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "a child writes the maps": (
        "become",
        """
def become_root(uid, gid):
    parent, (ready, go) = os.getpid(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ready, 1)
        for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/{parent}/{name}", "w") as file:
                file.write(text)
        os._exit(0)
    unshare(CLONE_NEWUSER)
    os.write(go, b".")
    os.waitpid(child, 0)
""",
    ),
    "labkit's own": (
        "become",
        """
def become_root(uid, gid):
    unshare(CLONE_NEWUSER)
    idmap.write(os.getpid(), idmap.IdMap.one(uid), idmap.IdMap.one(gid))
""",
    ),
    "other namespaces besides": (
        "become",
        changed(BECOME, "CLONE_NEWUSER", "CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWNS"),
    ),
    "by name": (
        "keep",
        """
def keep():
    names = ("NET_BIND_SERVICE", "SYS_CHROOT")
    capabilities.assign(bounding=names, permitted=names, inheritable=(), ambient=())
    prctl(PR_SET_NO_NEW_PRIVS, 1)
""",
    ),
    "labkit's own for containers": (
        "keep",
        'def keep():\n    capabilities.keep_only(capabilities.mask(("NET_BIND_SERVICE", "SYS_CHROOT")))\n',
    ),
    "an empty bounding set": (
        "keep",
        changed(KEEP, "        if not needed >> number & 1:\n            prctl", "        prctl"),
    ),
    "bytes": (
        "refuse",
        changed(REFUSE, 'return f"""', 'return bpf.assemble(f"""').replace('    """\n', '    """, SYSCALLS)\n'),
    ),
    "by numbers, the other way round": (
        "refuse",
        '''
def write_filter(call, last):
    return f"""
            ld [nr]
            jeq #{SYSCALLS[call]}, perhaps
            jge #{last + 1}, unknown
            ld [arch]
            jeq #{bpf.ARCHITECTURES[MACHINE]:#x}, fine, unknown
    fine:   ret allow
    perhaps: ret errno #1
    unknown: ret errno #38
    """
''',
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("11", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_nothing_returned_is_nothing_attempted() -> None:
    outcome = attempt("11", "refuse", "def write_filter(call, last):\n    print(call)\n")
    assert isinstance(outcome, NotAttempted), outcome


@pytest.mark.parametrize(("exercise", "code"), [("refuse", REFUSE), ("become", BECOME)])
def test_what_the_machine_lacks_is_said(exercise: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filter_checks, "machine", lambda: "riscv64")
    monkeypatch.setattr(privilege_checks, "run_in_child", refused)
    outcome = attempt("11", exercise, code)
    assert isinstance(outcome, NotChecked), outcome
    assert "This machine cannot run the check" in outcome.text


def test_the_lab_host_has_its_powers_and_its_name_afterwards() -> None:
    before = capabilities.of(host.pid()), procfs.status(host.pid())["Seccomp"]
    for exercise, code in (("become", BECOME), ("keep", KEEP), ("refuse", REFUSE)):
        assert isinstance(attempt("11", exercise, code), Passed)
    assert (capabilities.of(host.pid()), procfs.status(host.pid())["Seccomp"]) == before


# What the lab shows


def test_the_boxs_filter_refuses_every_way_to_namespaces_and_mounts() -> None:
    """Asked in the kernel, by root with all powers: EPERM is the filter's, and never the kernel's own."""
    answers = run_in_child(kernel_answers.for_namespaces_and_mounts, defined_in("11")["FILTER"])
    assert answers.pop("clone3") == "ENOSYS"
    assert answers == dict.fromkeys(answers, "EPERM")
    assert len(answers) == len(kernel_answers.KINDS) + 12


def test_what_is_asked_is_not_refused_by_the_kernel_itself() -> None:
    """Without the filter's refusal, none of the calls gets the answer that stands for it."""
    answers = run_in_child(kernel_answers.for_namespaces_and_mounts, bpf.assemble("ret allow"))
    assert not {"EPERM", "ENOSYS"} & set(answers.values()), answers
    assert answers["clone(NEWUSER)"] == answers["unshare"] == "ok"


def test_the_box_of_the_lab_starts_programs_under_its_filter(tmp_path: Path) -> None:
    shutil.copytree(rootfs.find("busybox"), tmp_path / "root", symlinks=True)
    command = ["/bin/sh", "-c", "(exit 3) || [ $(echo $(echo 5)) = 5 ] && unshare -r true 2>/dev/null || exit 7"]
    assert run_in_child(defined_in("11")["box"], command, "box", str(tmp_path / "root")) == 7


def test_the_filter_against_folders_refuses_all_that_makes_one() -> None:
    names = defined_in("11")
    code = bpf.assemble(names["NO_FOLDERS"], {"mkdir": names["SYSCALLS"]["mkdirat"], **names["SYSCALLS"]})
    answers = run_in_child(kernel_answers.for_folders, code)
    assert {"mkdirat", "io_uring_setup"} <= set(answers)
    assert answers == dict.fromkeys(answers, "EPERM")
    let_through = run_in_child(kernel_answers.for_folders, bpf.assemble("ret allow"))
    assert {let_through["mkdirat"], let_through.get("mkdir", "EFAULT")} == {"EFAULT"}
