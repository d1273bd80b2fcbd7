"""What may be asked of the kernel, as data in OCI's words: a `Profile` of `Rule`s, checked and never changed.

Named tuples, since a container may be started by a process that cannot afford dataclasses. Source: OCI
config-linux.md, "Seccomp".
"""

from collections import namedtuple

from labkit import libseccomp
from labkit.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Self

ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # in the order of libseccomp's numbers, from 1
_EPERM = 1


class Arg(namedtuple("Arg", "index value op value_two")):
    """A comparison of argument `index` (0 to 5) with `value`; for MASKED_EQ `value` is the mask, then the value."""

    __slots__ = ()

    def __new__(cls, index: int, value: int, op: str, value_two: int = 0) -> "Self":
        """Check them."""
        if not isinstance(index, int) or not 0 <= index <= 5:
            raise InvalidConfig(f"a system call has arguments 0 to 5, and no argument {index!r}")
        if op.removeprefix("SCMP_CMP_") not in OPERATORS:
            raise InvalidConfig(f"{op!r} is no comparison; there are SCMP_CMP_{{{','.join(OPERATORS)}}}")
        for number in (value, value_two):
            if not isinstance(number, int) or not 0 <= number < 1 << 64:
                raise InvalidConfig(
                    f"an argument is compared with a number from 0 to 2**64 - 1, and not with {number!r}"
                )
        return super().__new__(cls, index, value, op, value_two)


class Rule(namedtuple("Rule", "names action errno_ret args")):
    """What becomes of the system calls `names` whose arguments stand all of `args`."""

    __slots__ = ()

    def __new__(
        cls, names: "Iterable[str]", action: str, errno_ret: "int | None" = None, args: "Iterable[Arg]" = ()
    ) -> "Self":
        """Check them. A name that nobody knows is no error: it may be that of a newer kernel."""
        names = (names,) if isinstance(names, str) else tuple(names)
        if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise InvalidConfig(f"a rule names the system calls it is about, and not {names!r}")
        action_number(action, errno_ret)
        args = tuple(args)
        if not all(isinstance(arg, Arg) for arg in args):
            raise InvalidConfig(f"the arguments of a rule are compared by Arg(index, value, op), not {args!r}")
        return super().__new__(cls, names, action, errno_ret, args)


class Profile(namedtuple("Profile", "default_action default_errno_ret architectures syscalls")):
    """A filter in OCI's words: the first rule that fits a call decides, and the default where none does.

    `architectures` are those besides the machine's own by which its programs may call, such as SCMP_ARCH_X86.
    """

    __slots__ = ()

    def __new__(
        cls,
        default_action: str,
        default_errno_ret: "int | None" = None,
        architectures: "Iterable[str]" = (),
        syscalls: "Iterable[Rule]" = (),
    ) -> "Self":
        """Check them."""
        action_number(default_action, default_errno_ret)
        architectures, syscalls = tuple(architectures), tuple(syscalls)
        for architecture in architectures:
            if architecture not in libseccomp.TOKENS:
                raise InvalidConfig(f"{architecture!r} is no architecture known here: {', '.join(libseccomp.TOKENS)}")
        if not all(isinstance(rule, Rule) for rule in syscalls):
            raise InvalidConfig("the rules of a profile are made with Rule(names, action, ...)")
        return super().__new__(cls, default_action, default_errno_ret, architectures, syscalls)

    @classmethod
    def from_oci(cls, config: "Mapping[str, Any]") -> "Self":
        """The `linux.seccomp` of an OCI config.json."""
        unknown = set(config) - {"defaultAction", "defaultErrnoRet", "architectures", "syscalls", "flags"}
        if unknown or config.get("flags"):
            raise InvalidConfig(f"seccomp: labkit does not know {', '.join(sorted(unknown)) or 'flags'}")
        try:
            rules = [
                Rule(
                    rule["names"],
                    rule["action"],
                    rule.get("errnoRet"),
                    [Arg(a["index"], a["value"], a["op"], a.get("valueTwo", 0)) for a in rule.get("args") or ()],
                )
                for rule in config.get("syscalls") or ()
            ]
            return cls(config["defaultAction"], config.get("defaultErrnoRet"), config.get("architectures") or (), rules)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidConfig(f"seccomp: something is missing or of the wrong kind: {error}") from None


def action_number(name: str, errno_ret: "int | None") -> int:
    """The number of an action, as a filter returns it."""
    if name == "SCMP_ACT_NOTIFY":
        raise InvalidConfig("SCMP_ACT_NOTIFY needs a supervisor who answers, and labkit has none")
    if name not in ACTIONS:
        raise InvalidConfig(f"{name!r} is no action; there are {', '.join(ACTIONS)}")
    if errno_ret is not None and name not in _WITH_ERRNO:
        raise InvalidConfig(f"an errno goes with {' and '.join(_WITH_ERRNO)} only, not with {name}")
    if errno_ret is not None and not (isinstance(errno_ret, int) and 0 <= errno_ret <= 4095):
        raise InvalidConfig(f"{errno_ret!r} is no errno")
    return ACTIONS[name] | ((_EPERM if errno_ret is None else errno_ret) if name in _WITH_ERRNO else 0)
