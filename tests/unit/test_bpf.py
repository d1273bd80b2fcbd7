"""The assembler of filters, its inverse and the interpreter; and filters written by hand against libseccomp's."""

import os
from collections.abc import Iterator

import pytest

from labkit import bpf, libseccomp, seccomp
from labkit.errors import InvalidConfig
from labkit.seccomp import Arg, Profile, Rule

X86_64, I386 = bpf.ARCHITECTURES["x86_64"], bpf.ARCHITECTURES["i386"]

EXAMPLE = """
        ld [arch]                   ; whose numbers?
        jeq #x86_64, known, kill
known:  ld [nr]
        jge #0x40000000, kill
        jeq #mount, no
        ret allow
no:     ret errno #EPERM
kill:   ret kill_process
"""


def test_it_decides_as_it_reads() -> None:
    code = bpf.assemble(EXAMPLE, {"mount": 165})
    decide = {
        call: bpf.decision(bpf.run(code, *call)) for call in [(165, X86_64), (0, X86_64), (165, I386), (-1, X86_64)]
    }
    assert list(decide.values()) == ["errno EPERM", "allow", "kill_process", "kill_process"]


def test_it_can_be_read_again() -> None:
    code = bpf.assemble(EXAMPLE, {"mount": 165})
    assert bpf.disassemble(code, {"mount": 165}).splitlines() == [
        "   1: ld [arch]",
        "   2: jeq #x86_64, 3, 8",
        "   3: ld [nr]",
        "   4: jge #0x40000000, 8, 5",
        "   5: jeq #mount, 7, 6",
        "   6: ret allow",
        "   7: ret errno EPERM",
        "   8: ret kill_process",
    ]


def test_arguments_are_looked_at_in_halves() -> None:
    text = """
            ld [arg1+4]
            jeq #1, high
            ld [arg0]
            and #0xf0
            jeq #0x20, yes
            jset #0x40, yes, no
    yes:    ret log
    no:     ret trace #7
    high:   ret trap
    """
    code = bpf.assemble(text)

    def decide(*arguments: int) -> str:
        return bpf.decision(bpf.run(code, 0, X86_64, arguments))

    assert [decide(0x25), decide(0xC0), decide(0x80), decide(0x20, 1 << 32)] == ["log", "log", "trace 7", "trap"]
    assert "ld [arg1+4]" in bpf.disassemble(code)
    assert "jmp 3" in bpf.disassemble(bpf.assemble("jmp out\nret allow\nout: ret kill_thread"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1 to 4096 instructions"),
        ("ret allow\n" * 4097, "1 to 4096 instructions"),
        ("ld [nr]", "must be a ret"),
        ("jeq #1, gone\nret allow", "'gone' is nowhere"),
        ("back: ld [nr]\njeq #1, back\nret allow", "'back' is behind"),
        ("jmp self\nself: ret allow\n", ""),
        ("jeq #1, far\n" + "ld [nr]\n" * 256 + "far: ret allow", "too far"),
        ("st [nr]\nret allow", "'st \\[nr\\]' is no instruction"),
        ("ld [wrong]\nret allow", "no instruction"),
        ("jeq #mount, out\nout: ret allow", "stands for no number"),
        ("ret maybe", "no instruction"),
        ("jeq #1, a, b, c\nret allow", "no instruction"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_line(text: str, words: str) -> None:
    if not words:
        assert bpf.assemble(text)
        return
    with pytest.raises(InvalidConfig, match=words):
        bpf.assemble(text)


def test_a_jump_reaches_past_255() -> None:
    assert bpf.run(bpf.assemble("jeq #0, far\n" + "ld [nr]\n" * 255 + "far: ret allow"), 1, 0) == 0x7FFF0000


def test_an_operation_that_is_not_known_is_no_decision() -> None:
    with pytest.raises(InvalidConfig, match="instruction 0 has the operation 0x1"):
        bpf.run(bpf.INSTRUCTION.pack(1, 0, 0, 0), 0, 0)
    for offset in (2, 64):
        with pytest.raises(InvalidConfig, match=f"instruction 0 loads from {offset}"):
            bpf.run(bpf.assemble(f"ld [{offset}]\nret allow"), 0, 0)
    assert bpf.decision(0x12340000) == "0x12340000, which the kernel takes for kill_process"


# By hand and by libseccomp


def calls() -> Iterator[tuple[int, int]]:
    """Every number that there could be, and then some, by this machine's architecture and by others."""
    for arch in bpf.ARCHITECTURES.values():
        for number in [*range(1024), 4096, 0x3FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]:
            yield number, arch
        yield from ((bpf.X32_BIT | number, arch) for number in range(1024))


def differing(by_hand: bytes, by_library: bytes, arguments: tuple[int, ...] = ()) -> list[tuple[int, int, str, str]]:
    found = []
    for number, arch in calls():
        one, other = (bpf.run(code, number, arch, arguments) for code in (by_hand, by_library))
        if one != other:
            found.append((number, arch, bpf.decision(one), bpf.decision(other)))
    return found


# -1 is no call of x32: it is what a tracer puts there to have a call left out, and no rule is about it.
NO_X32 = """
                jeq #0xffffffff, yes
                jge #0x40000000, kill
"""


@pytest.fixture
def native() -> tuple[str, dict[str, int]]:
    """This machine's architecture and its system calls by name."""
    if os.uname().machine not in bpf.ARCHITECTURES:
        pytest.skip("this machine cannot: be amd64 or arm64")
    token = libseccomp.native()
    return os.uname().machine, {name: number for number, name in libseccomp.known(token).items()}


def test_a_list_of_what_is_refused(native: tuple[str, dict[str, int]]) -> None:
    machine, names = native
    profile = Profile(
        "SCMP_ACT_ALLOW",
        syscalls=[
            Rule(["mount", "umount2"], "SCMP_ACT_ERRNO"),
            Rule(["clone3"], "SCMP_ACT_ERRNO", 38),
            Rule(["reboot"], "SCMP_ACT_KILL_PROCESS"),
        ],
    )
    by_hand = bpf.assemble(
        f"""
                ld [arch]
                jeq #{machine}, ours, kill
        ours:   ld [nr]
                {NO_X32 if machine == "x86_64" else ""}
                jeq #mount, no
                jeq #umount2, no
                jeq #clone3, new
                jeq #reboot, kill
        yes:    ret allow
        no:     ret errno #EPERM
        new:    ret errno #ENOSYS
        kill:   ret kill_process
        """,
        names,
    )
    assert differing(by_hand, seccomp.compile_profile(profile)) == []


def test_a_list_of_what_is_allowed_with_the_unknown_told_apart(native: tuple[str, dict[str, int]]) -> None:
    machine, names = native
    allowed = ("read", "write", "exit_group", "futex")
    profile = Profile("SCMP_ACT_ERRNO", 13, syscalls=[Rule(allowed, "SCMP_ACT_ALLOW")])
    known = sorted(names.values())
    # Ranges of numbers that exist, counted by hand from the outside: everything between them is unknown.
    starts = [number for number in known if number - 1 not in known]
    ends = [number for number in known if number + 1 not in known]
    ranges = "\n".join(
        f"jge #{first}, from{first}, new\nfrom{first}: jgt #{last}, past{first}, known\npast{first}: ld [nr]"
        for first, last in zip(starts, ends, strict=True)
    )
    by_hand = bpf.assemble(
        f"""
                ld [arch]
                jeq #{machine}, ours, no
        ours:   ld [nr]
                {ranges}
                jmp new
        known:  {"".join(f"jeq #{name}, yes{chr(10)}" for name in allowed)}
        no:     ret errno #EACCES
        new:    ret errno #ENOSYS
        yes:    ret allow
        """,
        names,
    )
    assert differing(by_hand, seccomp.compile_profile(profile)) == []


@pytest.mark.parametrize(
    "first", [0, 8, 9, 0x20000, 0x20008, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 32, 8 | 1 << 40, 0x7E020000, 0x10000000]
)
def test_arguments_decide_in_all_their_64_bits(native: tuple[str, dict[str, int]], first: int) -> None:
    machine, names = native
    profile = Profile(
        "SCMP_ACT_ALLOW",
        syscalls=[
            Rule(["personality"], "SCMP_ACT_ERRNO", args=[Arg(0, 8, "SCMP_CMP_EQ")]),
            Rule(["clone"], "SCMP_ACT_ERRNO", 38, args=[Arg(0, 0x10000000, "SCMP_CMP_MASKED_EQ", 0x10000000)]),
        ],
    )
    by_hand = bpf.assemble(
        f"""
                ld [arch]
                jeq #{machine}, ours, kill
        ours:   ld [nr]
                {NO_X32 if machine == "x86_64" else ""}
                jeq #personality, who
                jeq #clone, made
        yes:    ret allow
        who:    ld [arg0+4]
                jeq #0, low, allow
        low:    ld [arg0]
                jeq #8, no, allow
        made:   ld [arg0]
                and #0x10000000
                jeq #0x10000000, new
        allow:  ret allow
        no:     ret errno #EPERM
        new:    ret errno #ENOSYS
        kill:   ret kill_process
        """,
        names,
    )
    assert differing(by_hand, seccomp.compile_profile(profile), (first,)) == []
