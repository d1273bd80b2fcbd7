"""The mounts that a process sees, as the tree they are: which stands on which, what is new, and who else hears of it.

Every mount but the root is mounted on a place in another one, its parent. On a *shared* mount, mounts made or removed
travel to its peers in other namespaces; one that *receives* hears of theirs and tells nothing; a *private* one neither.
Sources: mount_namespaces(7), proc_pid_mountinfo(5).
"""

from dataclasses import dataclass

from labkit import procfs


@dataclass(frozen=True)
class Mount:
    """One mount that the process sees; `new` where the host has no such mount."""

    mount_point: str
    filesystem: str
    source: str
    readonly: bool
    new: bool
    propagation: str  #: "shared", "receives", "shared, receives", "private" or "unbindable"
    depth: int  #: 0 for the root, 1 for what is mounted on it, ...
    holds_new: bool  #: whether something new stands on it, further up the tree


def tree(here: list[procfs.Mount], on_host: list[procfs.Mount]) -> tuple[tuple[Mount, ...], int]:
    """The mounts `here`, each before those that stand on it; and how many of the host's are not among them."""
    known, present = {_identity(mount) for mount in on_host}, {_identity(mount) for mount in here}
    by_id = {mount.mount_id: mount for mount in here}
    new = {mount.mount_id for mount in here if _identity(mount) not in known}
    carrying: set[int] = set()
    for mount_id in new:
        below = by_id[mount_id].parent_id
        while below in by_id and below not in carrying:
            carrying.add(below)
            below = by_id[below].parent_id
    children: dict[int, list[procfs.Mount]] = {}
    for mount in here:
        # The root's own parent is in no list, or is the root itself.
        on = mount.parent_id if mount.parent_id in by_id and mount.parent_id != mount.mount_id else -1
        children.setdefault(on, []).append(mount)
    found = []
    waiting = [(mount, 0) for mount in reversed(children.get(-1, []))]
    while waiting:
        mount, depth = waiting.pop()
        found.append(
            Mount(
                mount.mount_point,
                mount.filesystem,
                mount.source,
                mount.is_readonly,
                mount.mount_id in new,
                propagation(mount),
                depth,
                mount.mount_id in carrying,
            )
        )
        waiting += [(one, depth + 1) for one in reversed(children.get(mount.mount_id, []))]
    return tuple(found), len(known - present)


def _identity(mount: procfs.Mount) -> tuple[str, str, str]:
    # Copies in another mount namespace have ids of their own, but show the same place of the same device.
    return (mount.device, mount.root, mount.mount_point)


def propagation(mount: procfs.Mount) -> str:
    """Whether mounts made on it travel, in words."""
    kinds = {field.partition(":")[0] for field in mount.propagation}
    words = [word for kind, word in (("shared", "shared"), ("master", "receives")) if kind in kinds]
    return ", ".join(words) or ("unbindable" if "unbindable" in kinds else "private")


def as_text(mounts: tuple[Mount, ...]) -> list[str]:
    """What is new, and what it stands on, as lines of text."""
    shown = [one for one in mounts if one.new or one.holds_new]
    return [
        f"  {'+' if one.new else ' '} {'  ' * one.depth}{one.mount_point} {one.filesystem}"
        f"{' read-only' if one.readonly else ''} {one.propagation}"
        for one in shown
    ]
