"""A file system of one's own, mounted nowhere yet: asked for, told its options, made.

Sources: fsopen(2), fsconfig(2), fsmount(2).
"""

from labkit import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.program import Program, Value


def filesystem(
    program: "Program", fstype: str, options: "Iterable[str]" = (), attributes: int = 0, returns: str = ""
) -> "Value":
    """Add the system calls that make a new `fstype`; its mount, attached to no place, is the value.

    `options` are the file system's own, "size=64k" or "userxattr", each a call of its own, so that no value needs
    escaping. `attributes` are the mount's: MOUNT_ATTR_*.
    """
    options = tuple(options)
    context = program.call("fsopen", fstype, c.FSOPEN_CLOEXEC, returns=f"{fstype}_context")
    if not any(option.startswith("source=") for option in options):
        # As mount(8) would name it: else /proc/mounts says "none".
        program.call("fsconfig", context, c.FSCONFIG_SET_STRING, "source", fstype, 0)
    for option in options:
        key, equals, value = option.partition("=")
        if equals:
            program.call("fsconfig", context, c.FSCONFIG_SET_STRING, key, value, 0)
        else:
            program.call("fsconfig", context, c.FSCONFIG_SET_FLAG, key, None, 0)
    program.call("fsconfig", context, c.FSCONFIG_CMD_CREATE, None, None, 0)
    mount = program.call("fsmount", context, c.FSMOUNT_CLOEXEC, attributes, returns=returns or fstype)
    program.call("close", context)
    return mount
