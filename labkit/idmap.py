"""Who is who in a user namespace: the maps of user and group ids, and writing them for a process.

A map is a list of ranges `(inside, outside, count)`: the `count` ids from `inside` on, as they are called in the
namespace, are the ids from `outside` on in the namespace of whoever reads the map. An id that no range names has no
name on the other side; it is shown as 65534, the "overflow" id, which is `nobody`.

A map is written once, from outside, into /proc/PID/uid_map and gid_map of a process in the new namespace. How much may
be written depends on the writer:

- one with CAP_SETUID and CAP_SETGID in the parent namespace maps any ids that it has itself;
- an ordinary user maps one: their own. For groups only once the namespace has given up setgroups(2): by dropping a
  group one could otherwise get at files that are closed to just that group;
- newuidmap(1) and newgidmap(1) are privileged programs that map further ids for an ordinary user: those that
  /etc/subuid and /etc/subgid have set apart for them ("subordinate" ids), 65,536 each on most machines.

Sources: user_namespaces(7), subuid(5), newuidmap(1); OCI config-linux.md, "User namespace mappings".
"""

import os

from labkit import syscalls
from labkit.errors import InvalidConfig, LabkitError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

LINES_MAX = 340  # of a map, since Linux 4.15
ID_MAX = 0xFFFFFFFE  # the next one, -1, means "no id" in chown(2) and its kin
_CAP_SETGID, _CAP_SETUID = 1 << 6, 1 << 7


class IdMap(tuple[tuple[int, int, int], ...]):
    """Ranges `(inside, outside, count)`, checked as the kernel would check them, and never changed.

    `InvalidConfig`: none at all, more than 340, a count below 1, an id that does not fit, two ranges with an id in
    common on either side.
    """

    __slots__ = ()
    checks_itself = True  # so it may be made of what somebody says who is not trusted: `labkit.process.plain`

    def __new__(cls, ranges: "object" = ()) -> "Self":
        """Check `ranges`, an iterable of triples."""
        checked = [_range(item) for item in _iterable(ranges)]
        if not checked:
            raise InvalidConfig("an id map without a range maps nobody; map at least (0, your own id, 1)")
        if len(checked) > LINES_MAX:
            raise InvalidConfig(f"an id map has at most {LINES_MAX} ranges, and this one has {len(checked)}")
        for side, which in enumerate(("inside", "outside")):
            ordered = sorted(checked, key=lambda item: item[side])
            for lower, upper in zip(ordered, ordered[1:], strict=False):  # noqa: RUF007  (itertools is one more import)
                if lower[side] + lower[2] > upper[side]:
                    raise InvalidConfig(f"the ranges {lower} and {upper} have the id {upper[side]} {which} in common")
        return super().__new__(cls, checked)

    @classmethod
    def one(cls, outside: int, inside: int = 0) -> "Self":
        """The map of a single id."""
        return cls([(inside, outside, 1)])

    @classmethod
    def parse(cls, text: str) -> "Self":
        """The map that the lines of a /proc/PID/uid_map say."""
        return cls(tuple(int(number) for number in line.split()) for line in text.splitlines())

    def outside(self, inside: int) -> int | None:
        """What the id `inside` is called outside; None where it is nobody there."""
        return next((out + inside - first for first, out, count in self if first <= inside < first + count), None)

    def inside(self, outside: int) -> int | None:
        """What the id `outside` is called inside; None where it is nobody there."""
        return next((first + outside - out for first, out, count in self if out <= outside < out + count), None)

    def __str__(self) -> str:
        """The lines as the kernel takes them."""
        return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in self)


def _iterable(ranges: object) -> "list[object]":
    try:
        return list(ranges)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        raise InvalidConfig(f"an id map is a list of ranges (inside, outside, count), not {ranges!r}") from None


def _range(item: object) -> tuple[int, int, int]:
    numbers = tuple(item) if isinstance(item, tuple | list) else ()
    if len(numbers) != 3 or not all(isinstance(number, int) for number in numbers):
        raise InvalidConfig(f"a range of an id map is (inside, outside, count), three whole numbers, not {item!r}")
    inside, outside, count = numbers
    if count < 1:
        raise InvalidConfig(f"the range {numbers} maps {count} ids; the count is at least 1")
    if min(inside, outside) < 0 or max(inside, outside) + count - 1 > ID_MAX:
        raise InvalidConfig(f"the range {numbers} leaves the ids that there are, 0 to {ID_MAX}")
    return inside, outside, count


# Reading


def of(pid: int | str) -> tuple[IdMap, IdMap]:
    """The maps (users, groups) of the user namespace that process `pid` is in, as the caller's namespace sees them.

    `LabkitError`: they are not written yet, or the process is gone.
    """
    maps = []
    for name in ("uid_map", "gid_map"):
        try:
            with open(f"/proc/{pid}/{name}") as file:
                text = file.read()
        except (FileNotFoundError, ProcessLookupError):
            raise LabkitError(f"there is no process {pid}") from None
        if not text:
            raise LabkitError(f"process {pid} is in a user namespace whose {name} is not written yet")
        maps.append(IdMap.parse(text))
    return maps[0], maps[1]


def subordinate(path: str, uid: int, name: str | None = None) -> list[tuple[int, int]]:
    """The ranges (first, count) that `path`, /etc/subuid or /etc/subgid, sets apart for a user. subuid(5).

    A line is `user:first:count`, and the user stands there by name or number. A line that makes no sense is passed
    over, as newuidmap(1) does; a file that is not there has none.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if owner in (str(uid), name) and first.isdecimal() and count.isdecimal():
            start, length = int(first), int(count)
            if length and start + length - 1 <= ID_MAX and (start, length) not in found:
                found.append((start, length))
    return found


def for_user(subuid: str = "/etc/subuid", subgid: str = "/etc/subgid") -> tuple[IdMap, IdMap]:
    """The widest maps (users, groups) that the calling user may have for a namespace in which they are root.

    They themselves are 0 inside; their subordinate ids follow from 1 on. Without subordinate ids of both kinds, or
    without newuidmap(1) and newgidmap(1) to map them, there are no others. Who may map anything (root in an outer
    container, say) maps all that they have to itself.
    """
    if _may_map_all():
        own = of("self")
        return tuple(IdMap((inside, inside, count) for inside, _, count in map_) for map_ in own)  # type: ignore[return-value]
    uid, gid = os.geteuid(), os.getegid()
    try:
        import pwd

        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = None
    uids, gids = subordinate(subuid, uid, name), subordinate(subgid, uid, name)
    if uids and gids and _helper("newuidmap") and _helper("newgidmap"):
        return _rooted(uid, uids), _rooted(gid, gids)
    return IdMap.one(uid), IdMap.one(gid)


def _rooted(own: int, ranges: list[tuple[int, int]]) -> IdMap:
    inside = 1
    mapped = [(0, own, 1)]
    for first, count in ranges[: LINES_MAX - 1]:
        try:
            IdMap([*mapped, (inside, first, count)])
        except InvalidConfig:
            continue  # it overlaps one before it, or there are no numbers left inside
        mapped.append((inside, first, count))
        inside += count
    return IdMap(mapped)


# Writing


def write(pid: int, uids: IdMap, gids: IdMap) -> None:
    """Write the maps of the new user namespace that process `pid`, a child, the caller or its like, is in.

    Directly where the caller may, with newuidmap(1) and newgidmap(1) where it is more than an ordinary user may.
    `Unsupported`: those are not installed. `LabkitError`: they refuse. `PermissionError`: the kernel does.
    """
    own = len(uids) == len(gids) == uids[0][2] == gids[0][2] == 1
    if _may_map_all() and not _in_it(pid):
        _write(pid, "uid_map", str(uids))
        _write(pid, "gid_map", str(gids))
    elif own:
        # The order is the kernel's: gid_map may be written only after this, and this only before gid_map.
        _write(pid, "setgroups", "deny")
        _write(pid, "uid_map", str(uids))
        _write(pid, "gid_map", str(gids))
    else:
        _have_written("newuidmap", pid, uids)
        _have_written("newgidmap", pid, gids)


def write_for_user(pid: int) -> None:
    """Map the calling user to root in the new user namespace of process `pid`, with all further ids that they have.

    Where further ones cannot be had after all (setuid programs may be powerless here: no_new_privs), their own alone.
    """
    uids, gids = for_user()
    try:
        write(pid, uids, gids)
    except (OSError, LabkitError):
        # A map is written once: one of the two may be there already, and stays.
        if not _read(pid, "gid_map"):
            _write(pid, "setgroups", "deny")
            _write(pid, "gid_map", str(IdMap.one(os.getegid())))
        if not _read(pid, "uid_map"):
            _write(pid, "uid_map", str(IdMap.one(os.geteuid())))


def _in_it(pid: int) -> bool:
    """Whether the caller is in that namespace itself: all that it may there counts for nothing in the parent."""
    return os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino


def _may_map_all() -> bool:
    needed = _CAP_SETUID | _CAP_SETGID
    return syscalls.capget()[0] & needed == needed


def _write(pid: int, name: str, text: str) -> None:
    # In one write(2): the kernel takes the whole map at once or not at all.
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except PermissionError as error:
        error.add_note(
            f"{name} of process {pid} is written once, from the parent of its user namespace; an ordinary user maps "
            "one id, their own, and for groups only after writing `deny` to setgroups."
        )
        raise
    finally:
        os.close(fd)


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}") as file:
        return file.read()


def _helper(name: str) -> str | None:
    import shutil

    return shutil.which(name)


def _have_written(name: str, pid: int, map_: IdMap) -> None:
    import subprocess

    helper = _helper(name)
    if not helper:
        raise Unsupported(f"{name} is not installed", "install the package uidmap (./lab setup does)")
    done = subprocess.run([helper, str(pid), *str(map_).split()], capture_output=True, text=True, timeout=30)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise LabkitError(f"the ids could not be mapped ({said[0]}); /etc/subuid and /etc/subgid say which are yours")
