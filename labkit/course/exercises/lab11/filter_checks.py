"""What the check of lab 11's filter looks at: what it decides on paper, for every system call, and in the kernel."""

import errno
import os
from collections.abc import Callable

from labkit import bpf, capabilities, libseccomp, procfs, seccomp, syscalls
from labkit.course.framework.outcomes import NotYet
from labkit.errors import InvalidConfig, Unsupported

#: Harmless with zeros for arguments: no file is named. Both architectures have them.
REFUSABLE = ("mkdirat", "symlinkat", "linkat", "unlinkat", "mknodat", "fchmodat", "truncate")

TEXT_MAX = 20_000  # characters of a filter that is looked at

REFUSED, UNKNOWN = f"errno {errno.errorcode[errno.EPERM]}", f"errno {errno.errorcode[errno.ENOSYS]}"


def numbers() -> dict[str, int]:
    """This machine's system calls by name. `Unsupported`: libseccomp, which knows them, is not installed."""
    return {name: number for number, name in libseccomp.known(libseccomp.native()).items()}


def require() -> None:
    """Raise `Unsupported` where filters cannot be tried."""
    if machine() not in bpf.ARCHITECTURES:
        raise Unsupported(f"the assembler does not know {machine()}", "run this lab on amd64 or arm64")
    if "Seccomp" not in procfs.status("self"):
        raise Unsupported("this kernel was built without seccomp", "run the labs in the VM: ./lab vm")


def machine() -> str:
    """This machine's architecture as the assembler calls it."""
    return os.uname().machine


def wrong_on_paper(decide: Callable[[int, int], str], call: str, last: int, known: dict[str, int]) -> NotYet | None:
    """Where the filter decides otherwise than it should, tried for every number and architecture."""
    here, number = bpf.ARCHITECTURES[machine()], known[call]
    if mistake := _wrong_refusal(decide(number, here), call):
        return mistake
    others = {other: name for name, other in known.items() if other not in (number, last)}
    refused = [name for other, name in others.items() if decide(other, here) != "allow"]
    if refused:
        return NotYet(
            f"`{call}` is refused, and so {'are' if len(refused) > 1 else 'is'} {len(refused)} other"
            f"{'s' if len(refused) > 1 else ''}: `{refused[0]}` gets `{decide(known[refused[0]], here)}`.",
            "Follow a harmless call through your filter, line by line. A conditional jump with one label goes on with "
            "the next line where its condition does not hold.",
        )
    if decide(last, here) != "allow":
        return NotYet(
            f"The call number {last} is known, it is the last one, and your filter says `{decide(last, here)}`.",
            "`jge` means: greater, or equal.",
        )
    return _wrong_unknown(decide, last, here) or _wrong_foreign(decide, known)


def _wrong_refusal(decided: str, call: str) -> NotYet | None:
    if decided == REFUSED:
        return None
    if decided == "allow":
        return NotYet(
            f"On paper, your filter allows `{call}`.",
            "Is `nr` loaded when its number is compared? And where does the jump lead when they are equal?",
        )
    if decided.startswith("kill"):
        return NotYet(
            f"Your filter says `{decided}` to `{call}`.",
            "That ends the program without a word. It was to be told EPERM, which it can handle.",
        )
    return NotYet(
        f"Your filter says `{decided}` to `{call}`.",
        "The errno decides what the program makes of it. EPERM says: you may not. ENOSYS says: there is no such call.",
    )


def _wrong_unknown(decide: Callable[[int, int], str], last: int, here: int) -> NotYet | None:
    wrong = next((number for number in range(last + 1, 1024) if decide(number, here) != UNKNOWN), None)
    if wrong is None:
        return None
    decided = decide(wrong, here)
    if decided == "allow":
        return NotYet(
            f"Number {wrong} is beyond the last call that is known, and your filter allows it.",
            "The next kernel may have a call of that number, and nobody knows what it will do. One comparison with the "
            "last known number is enough for all that will ever come.",
        )
    return NotYet(
        f"Number {wrong}, which nobody knows, gets `{decided}`.",
        "A libc that tries a new call and is told ENOSYS uses an old one. Anything else, and it gives up: you have "
        "seen it with clone3.",
    )


def _wrong_foreign(decide: Callable[[int, int], str], known: dict[str, int]) -> NotYet | None:
    for name, arch in bpf.ARCHITECTURES.items():
        if name != machine():
            passed = [number for number in range(512) if decide(number, arch) == "allow"]
            if passed:
                return NotYet(
                    f"A call by the numbers of {name} gets past the filter: {len(passed)} of the first 512 do.",
                    "A process may call as a program of another architecture does, and there the numbers mean other "
                    "calls. Look at `arch` first, and let through none but your own.",
                )
    return None


def in_the_kernel(code: bytes, call: int, unknown: int) -> dict[str, str]:
    """In a child: put the filter on, make three calls, and say what became of each."""
    capabilities.keep_only(0)
    seccomp.load(code)
    return {"refused": _answer(call), "unknown": _answer(unknown), "allowed": _answer(numbers_of_getppid())}


def numbers_of_getppid() -> int:
    """The number of getppid(2), a call that cannot fail."""
    return 110 if machine() == "x86_64" else 173


def _answer(number: int) -> str:
    result = syscalls.raw(number, 0, 0, 0, 0, 0, 0)
    return errno.errorcode.get(-result, str(result)) if result < 0 else "ok"


def assembled(text: object, known: dict[str, int]) -> bytes | NotYet:
    """What the learner has written, as the kernel takes it."""
    if isinstance(text, bytes | str) and len(text) > TEXT_MAX:
        return NotYet(
            f"The filter has {len(text)} characters.", f"At most {TEXT_MAX} are read. A dozen lines are enough."
        )
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        return NotYet(
            f"The function returned {type(text).__name__}, and not a text.",
            "It returns the filter as text, as in the example above; the check assembles it.",
        )
    try:
        return bpf.assemble(text, known)
    except InvalidConfig as error:
        return NotYet(
            f"The assembler does not understand the filter: {error}.",
            "Each line is a `label:`, an instruction, or both. The example above has every instruction that you need.",
        )
