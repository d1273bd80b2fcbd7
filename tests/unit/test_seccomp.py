"""Profiles: what makes one, what is refused, and what the default one decides."""

import errno
import marshal
import os
from pathlib import Path

import pytest

from labkit import bpf, capabilities, libseccomp
from labkit.errors import InvalidConfig, Unsupported
from labkit.seccomp import Arg, Profile, Rule, seccomp

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"


def decide(profile: Profile, call: str, *arguments: int, token: int | None = None) -> str:
    """What the compiled profile decides for the system call of that name, by this machine's architecture."""
    number = libseccomp.number(call, token or libseccomp.native())
    assert number is not None
    return bpf.decision(bpf.run(seccomp.compile_profile(profile), number, token or libseccomp.native(), arguments))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Arg(6, 0, "SCMP_CMP_EQ"), "arguments 0 to 5"),
        (lambda: Arg(-1, 0, "SCMP_CMP_EQ"), "arguments 0 to 5"),
        (lambda: Arg(0, 0, "SCMP_CMP_LIKE"), "'SCMP_CMP_LIKE' is no comparison"),
        (lambda: Arg(0, -1, "SCMP_CMP_EQ"), "a number from 0"),
        (lambda: Arg(0, 1 << 64, "SCMP_CMP_EQ"), "a number from 0"),
        (lambda: Rule([], ALLOW), "names the system calls"),
        (lambda: Rule(["mount;"], ALLOW), "names the system calls"),
        (lambda: Rule([5], ALLOW), "names the system calls"),  # type: ignore[list-item]
        (lambda: Rule(["mount"], "ALLOW"), "'ALLOW' is no action"),
        (lambda: Rule(["mount"], "SCMP_ACT_NOTIFY"), "needs a supervisor"),
        (lambda: Rule(["mount"], ALLOW, 1), "an errno goes with"),
        (lambda: Rule(["mount"], ERRNO, 4096), "4096 is no errno"),
        (lambda: Rule(["mount"], ERRNO, -1), "-1 is no errno"),
        (lambda: Rule(["mount"], ALLOW, args=[(0, 1, "EQ")]), "compared by Arg"),  # type: ignore[list-item]
        (lambda: Profile("NOTHING"), "'NOTHING' is no action"),
        (lambda: Profile(ALLOW, architectures=["x86"]), "'x86' is no architecture"),
        (lambda: Profile(ALLOW, syscalls=["mount"]), "made with Rule"),  # type: ignore[list-item]
    ],
)
def test_what_makes_no_sense_is_refused_in_words(make: object, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        make()  # type: ignore[operator]


VSOCK = {"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}


def test_a_profile_is_read_as_oci_has_it() -> None:
    config = {
        "defaultAction": ERRNO,
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read", "write"], "action": ALLOW},
            {
                "names": ["socket"],
                "action": ERRNO,
                "errnoRet": 97,
                "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    expected = Profile(
        ERRNO,
        38,
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        [Rule(["read", "write"], ALLOW), Rule(["socket"], ERRNO, 97, [Arg(0, 40, "SCMP_CMP_EQ")])],
    )
    assert Profile.from_oci(config) == expected


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "missing"),
        ({"defaultAction": ALLOW, "syscalls": [{"action": ALLOW}]}, "missing"),
        ({"defaultAction": ALLOW, "syscalls": ["mount"]}, "wrong kind"),
        ({"defaultAction": ALLOW, "syscalls": [{"names": ["a"], "action": ALLOW, "args": [{"index": 0}]}]}, "missing"),
        ({"defaultAction": ALLOW, "listenerPath": "/run/x"}, "does not know listenerPath"),
        ({"defaultAction": ALLOW, "flags": ["SECCOMP_FILTER_FLAG_LOG"]}, "does not know flags"),
    ],
)
def test_what_oci_has_and_labkit_has_not_is_said(config: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        Profile.from_oci(config)


def test_names_of_a_newer_kernel_do_no_harm() -> None:
    profile = Profile(ERRNO, syscalls=[Rule(["read", "made_up_in_2040"], ALLOW)])
    assert decide(profile, "read") == "allow"
    assert decide(profile, "write") == "errno EPERM"


def test_comparisons_of_one_argument_are_alternatives_and_of_several_are_not() -> None:
    either = Rule(["socket"], ALLOW, args=[Arg(0, 1, "SCMP_CMP_EQ"), Arg(0, 2, "SCMP_CMP_EQ")])
    both = Rule(["dup2", "dup3"], ALLOW, args=[Arg(0, 1, "SCMP_CMP_EQ"), Arg(1, 2, "SCMP_CMP_EQ")])
    profile = Profile(ERRNO, syscalls=[either, both])
    assert [decide(profile, "socket", family) for family in (1, 2, 3)] == ["allow", "allow", "errno EPERM"]
    several = ((1, 2), (1, 3), (3, 2))
    assert [decide(profile, "dup3", *fds) for fds in several] == [
        "allow",
        "errno EPERM",
        "errno EPERM",
    ]


@pytest.mark.parametrize("default", [ALLOW, "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_no_architecture_gets_past_a_list_of_what_is_refused(default: str) -> None:
    code = seccomp.compile_profile(Profile(default, syscalls=[Rule(["mount"], ERRNO)]))
    foreign = [arch for arch in bpf.ARCHITECTURES.values() if arch != libseccomp.native()]
    assert {bpf.decision(bpf.run(code, number, arch)) for arch in foreign for number in range(500)} == {"kill_process"}


def test_what_was_compiled_is_kept_for_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    profile = Profile(ERRNO, 77, syscalls=[Rule(["read"], ALLOW)])
    first = seccomp.compile_profile(profile)
    (kept,) = (tmp_path / "seccomp").iterdir()
    monkeypatch.setattr(seccomp, "_compiled", {})
    monkeypatch.setattr(seccomp, "_compile", lambda _: b"compiled again")
    assert seccomp.compile_profile(profile) == first
    of_another = marshal.dumps(("another profile", first))
    for damaged in (b"", b"nonsense", kept.read_bytes()[:-20], of_another):
        kept.write_bytes(damaged)
        monkeypatch.setattr(seccomp, "_compiled", {})
        assert seccomp.compile_profile(profile) == b"compiled again"


def test_a_state_folder_that_cannot_be_written_is_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "file"))
    assert seccomp.compile_profile(Profile(ERRNO, 78, syscalls=[Rule(["read"], ALLOW)]))


def test_without_libseccomp_it_is_said_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(libseccomp, "_library", None)
    monkeypatch.setattr("ctypes.CDLL", nothing)
    profile = Profile(ERRNO, 79)
    with pytest.raises(Unsupported, match="libseccomp2"):
        seccomp.compile_profile(profile)


# The default profile

REFUSED = """
    mount umount2 pivot_root unshare setns open_tree move_mount fsopen fsmount mount_setattr keyctl add_key request_key
    bpf perf_event_open kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct
    settimeofday clock_settime open_by_handle_at quotactl syslog sethostname setdomainname userfaultfd io_uring_setup
    nfsservctl kcmp process_madvise pidfd_getfd vhangup lookup_dcookie fanotify_init mbind set_mempolicy move_pages
"""


@pytest.mark.parametrize("call", REFUSED.split())
def test_the_default_refuses_what_could_harm_the_machine(call: str) -> None:
    profile = seccomp.default_profile(())
    number = libseccomp.number(call, libseccomp.native())
    if number is None or number < 0:
        pytest.skip("this machine cannot: a system call of another architecture")
    assert decide(profile, call) == "errno EPERM"


ORDINARY = "read write execve exit_group openat mmap ptrace wait4 kill prctl seccomp"


@pytest.mark.parametrize("call", ORDINARY.split())
def test_the_default_allows_what_programs_live_on(call: str) -> None:
    assert decide(seccomp.default_profile(()), call) == "allow"


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "unshare"),
        ("SYS_ADMIN", "clone3"),
        ("sys_chroot", "chroot"),
        ("SYS_TIME", "clock_settime"),
        ("SYS_PTRACE", "kcmp"),
        ("SYS_MODULE", "init_module"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYSLOG", "syslog"),
        ("BPF", "bpf"),
        ("PERFMON", "perf_event_open"),
        ("SYS_NICE", "mbind"),
        ("SYS_PACCT", "acct"),
        ("SYS_BOOT", "reboot"),
        ("SYS_TTY_CONFIG", "vhangup"),
    ],
)
def test_who_keeps_a_capability_may_make_its_calls(capability: str, call: str) -> None:
    assert decide(seccomp.default_profile(()), call) != "allow"
    assert decide(seccomp.default_profile([capability]), call) == "allow"


def test_clone_makes_threads_and_no_namespaces() -> None:
    profile = seccomp.default_profile(capabilities.DEFAULT)
    assert decide(profile, "clone", 0x003D0F00) == "allow"  # what pthread_create asks for
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(profile, "clone", 17 | flag) == "errno EPERM"
    assert decide(profile, "clone3") == "errno ENOSYS"
    assert decide(seccomp.default_profile(["SYS_ADMIN"]), "clone", 0x10000000) == "allow"


def test_sockets_but_those_of_hypervisors_and_of_the_kernels_ciphers() -> None:
    profile = seccomp.default_profile(())
    for family in range(46):
        assert decide(profile, "socket", family, 1, 0) == ("errno EPERM" if family in (38, 40) else "allow")
    # The kernel looks at the lower 32 bits alone.
    for family in (1, 40):
        assert decide(profile, "socket", family | 1 << 32, 1, 0) == "errno EPERM"


def test_personalities_that_keep_the_address_space_random() -> None:
    profile = seccomp.default_profile(())
    assert {decide(profile, "personality", kind) for kind in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)} == {"allow"}
    assert {decide(profile, "personality", kind) for kind in (0x0040000, 1, 8 | 1 << 32)} == {"errno EPERM"}


def test_what_nobody_has_heard_of_does_not_exist() -> None:
    code = seccomp.compile_profile(seccomp.default_profile(()))
    known = libseccomp.known(libseccomp.native())
    for number in [*range(1024), 4096, 0x3FFFFFFF, 0xFFFFFFFF]:
        decision = bpf.decision(bpf.run(code, number, libseccomp.native()))
        assert (decision == "errno ENOSYS") == (number not in known or known[number] == "clone3"), number


def test_32_bit_programs_are_filtered_too() -> None:
    token = {"x86_64": bpf.ARCHITECTURES["i386"], "aarch64": bpf.ARCHITECTURES["arm"]}.get(os.uname().machine)
    if token is None:
        pytest.skip("this machine cannot: be amd64 or arm64")
    profile = seccomp.default_profile(())
    assert decide(profile, "mount", token=token) == "errno EPERM"
    assert decide(profile, "getpid", token=token) == "allow"
    code = seccomp.compile_profile(profile)
    assert bpf.decision(bpf.run(code, 999, token)) == "errno ENOSYS"
    # Any other is refused altogether, and so is x32.
    for arch in (0x80000016, 0xC00000F3, 0):
        assert {bpf.decision(bpf.run(code, number, arch)) for number in range(1024)} == {"errno EPERM"}
    if os.uname().machine == "x86_64":
        x32 = {bpf.decision(bpf.run(code, number | bpf.X32_BIT, libseccomp.native())) for number in range(1024)}
        assert x32 == {"errno ENOSYS"}


def test_the_profile_of_the_other_architecture_is_there_too() -> None:
    assert seccomp.default_profile(()).architectures
    from labkit.seccomp import default as seccomp_default

    both = [seccomp_default.default_profile((), machine) for machine in ("x86_64", "aarch64")]
    assert [profile.architectures[0] for profile in both] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    assert "arch_prctl" in both[0].syscalls[0].names
    assert "arch_prctl" not in both[1].syscalls[0].names


def test_the_instructions_before_it_fit_every_architecture() -> None:
    tokens = {token: list(libseccomp.known(token)) for token in libseccomp.TOKENS.values()}
    code = seccomp._unknown_is_enosys(tokens) + bpf.assemble("ret allow")
    for name, token in libseccomp.TOKENS.items():
        bit, arch = (bpf.X32_BIT, bpf.ARCHITECTURES["x86_64"]) if name == "SCMP_ARCH_X32" else (0, token)
        for number in range(1024):
            expected = "allow" if number in tokens[token] else "errno ENOSYS"
            assert bpf.decision(bpf.run(code, number | bit, arch)) == expected, (name, number)
    assert errno.ENOSYS == 38
