"""libseccomp, the library that compiles rules on system calls into BPF, as far as labkit uses it.

It knows every system call's number on every architecture, and the traps: numbers of x32 programs, calls that i386
bundles in one (socketcall, ipc), 64-bit arguments compared with 32-bit instructions. Loaded when first used; what it
lacks is said then. Sources: seccomp_init(3), seccomp_rule_add(3), seccomp_syscall_resolve_name(3).
"""

import ctypes
import os

from labkit.errors import InvalidConfig, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    Comparison = tuple[int, int, int, int]  # argument, SCMP_CMP_*, and one or two numbers (mask, value)

#: What this kernel's own programs may call by: AUDIT_ARCH_* and libseccomp's own token for x32.
TOKENS = {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X32": 0x4000003E}
TOKENS |= {"SCMP_ARCH_AARCH64": 0xC00000B7, "SCMP_ARCH_ARM": 0x40000028}
_NUMBERS = 1024  # no architecture here has one beyond
_X32_BIT = 0x40000000
_ATTRIBUTE_BADARCH, _ATTRIBUTE_OPTIMIZE = 2, 8
_NO_SUCH_CALL = -1
_EEXIST = 17


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


_library: "ctypes.CDLL | None" = None


def _load() -> "ctypes.CDLL":
    global _library
    if _library is None:
        try:
            library = ctypes.CDLL("libseccomp.so.2")
        except OSError:
            raise Unsupported(
                "libseccomp, which compiles filters of system calls, is not installed",
                "sudo apt-get install libseccomp2 (./lab setup does)",
            ) from None
        context, number, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p
        for name, result, *arguments in (
            ("seccomp_version", ctypes.POINTER(number * 3)),
            ("seccomp_init", context, number),
            ("seccomp_release", None, context),
            ("seccomp_attr_set", ctypes.c_int, context, ctypes.c_int, number),
            ("seccomp_arch_add", ctypes.c_int, context, number),
            ("seccomp_arch_native", number),
            ("seccomp_rule_add_array", ctypes.c_int, context, number, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p),
            ("seccomp_export_bpf", ctypes.c_int, context, ctypes.c_int),
            ("seccomp_syscall_resolve_name_arch", ctypes.c_int, number, text),
            ("seccomp_syscall_resolve_num_arch", ctypes.c_void_p, number, ctypes.c_int),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        _library = library
    return _library


def version() -> tuple[int, ...]:
    """Which libseccomp this is, such as (2, 5, 4)."""
    return tuple(_load().seccomp_version().contents)


def native() -> int:
    """The token of this machine's own architecture."""
    return int(_load().seccomp_arch_native())


def number(name: str, token: int) -> int | None:
    """The number of the system call `name` there; None where this libseccomp has not heard of it.

    A negative number stands for a call that only other architectures have.
    """
    found = int(_load().seccomp_syscall_resolve_name_arch(token, name.encode()))
    return None if found == _NO_SUCH_CALL else found


def known(token: int) -> dict[int, str]:
    """The system calls there are, by number, as far as this libseccomp has heard of them."""
    library, free = _load(), ctypes.CDLL(None).free
    free.argtypes = (ctypes.c_void_p,)
    bit = _X32_BIT if token == TOKENS["SCMP_ARCH_X32"] else 0
    found = {}
    for candidate in range(_NUMBERS):
        if address := library.seccomp_syscall_resolve_num_arch(token, candidate | bit):
            found[candidate] = ctypes.string_at(address).decode()
            free(address)
    return found


class Filter:
    """A filter being written: rules, then the program in BPF."""

    def __init__(self, default: int, bad_architecture: int, tokens: "Iterable[int]" = ()) -> None:
        """For this machine's own architecture and those of `tokens`; calls by any other are `bad_architecture`."""
        self._library = _load()
        self._context = self._library.seccomp_init(default)
        if not self._context:
            raise InvalidConfig(f"{default:#x} is no action that libseccomp takes as the default")
        self._library.seccomp_attr_set(self._context, _ATTRIBUTE_BADARCH, bad_architecture)
        # A binary tree of numbers in place of one comparison after another; not before libseccomp 2.5.
        self._library.seccomp_attr_set(self._context, _ATTRIBUTE_OPTIMIZE, 2)
        for token in tokens:
            result = self._library.seccomp_arch_add(self._context, token)
            if result not in (0, -_EEXIST):
                name = next((name for name, known in TOKENS.items() if known == token), hex(token))
                raise InvalidConfig(f"calls by {name} cannot be filtered on this machine: {os.strerror(-result)}")

    def rule(self, action: int, number: int, comparisons: "tuple[Comparison, ...]" = ()) -> None:
        """What becomes of calls of `number` (this machine's) whose arguments stand all comparisons."""
        array = (_Comparison * max(len(comparisons), 1))(*(_Comparison(*comparison) for comparison in comparisons))
        result = self._library.seccomp_rule_add_array(self._context, action, number, len(comparisons), array)
        if result < 0:
            raise InvalidConfig(f"libseccomp refuses a rule on system call {number}: {os.strerror(-result)}")

    def export(self) -> bytes:
        """The program, as seccomp(2) takes it."""
        with open(os.memfd_create("labkit-filter", os.MFD_CLOEXEC), "w+b") as file:
            result = self._library.seccomp_export_bpf(self._context, file.fileno())
            if result < 0:
                raise InvalidConfig(f"libseccomp cannot compile this filter: {os.strerror(-result)}")
            file.seek(0)
            return file.read()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self._library.seccomp_release(self._context)
