"""The exercises of lab 11: root in a user namespace, the capabilities of a server, a filter of system calls."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from labkit import bpf, capabilities, host, namespaces, procfs, temporary
from labkit.course.exercises.common.mount_stand_in import InFork
from labkit.course.exercises.lab11 import filter_checks, privilege_checks
from labkit.course.exercises.lab11.privilege_checks import NEEDED, tried
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotAttempted, NotYet, Passed, Verdict
from labkit.errors import InvalidConfig
from labkit.process import Child, spawn, spawn_closed

__all__ = ["Become", "Keep", "Refuse"]


class Become(Exercise):
    """A user namespace, with its maps."""

    name = "become"
    title = "Be root without being root"
    points = 2
    start = "Begin with a user namespace of your own; look at `/proc/self/uid_map` before and after."
    hints = (
        (
            "A new user namespace is empty: nobody in it has a name. Who is who is said by two files, one for users "
            "and one for groups. Each takes a single line."
        ),
        (
            "The line is `inside outside count`. As an ordinary user you may map exactly one id, your own; and for "
            "groups only once you have written the word `deny` to a third file, `/proc/self/setgroups`."
        ),
        (
            '`unshare(CLONE_NEWUSER)`; then write `deny` to `/proc/self/setgroups`, `f"0 {uid} 1"` to '
            '`/proc/self/uid_map`, and `f"0 {gid} 1"` to `/proc/self/gid_map`.'
        ),
    )
    because = (
        "The process has not become another user: outside it is who it was, and may do what it might before. It has "
        "got a name, 0, and all capabilities, both valid in the namespace that it made itself and in what that owns."
    )

    def check(self, become_root: Callable[[int, int], object]) -> Verdict:
        """Call it as an ordinary user; read the maps from outside, and try what that root may do."""
        privilege_checks.require_user_namespaces()
        uid, gid = privilege_checks.ordinary_ids(self.draw_number(1000, 60000), self.draw_number(1000, 60000))
        name = self.draw_name("host")
        with spawn(privilege_checks.become_ordinary, uid, gid) as child:
            before = namespaces.inode(child.pid, "user")
            done = child.call(tried, become_root, uid, gid)
            if not isinstance(done.error, PermissionError) or hasattr(done.error, "__notes__"):
                done.value_or_raise()  # not a refusal by one of the files, which say no more than "no"
            if mistake := privilege_checks.not_root(child, uid, gid, done, before):
                return mistake
            if isinstance(done.error, PermissionError):
                return NotYet(
                    "Both maps are written. Then the kernel refused something more that you wrote.",
                    "`setgroups` can be written only before `gid_map`. Here it said `deny` already; it does not "
                    "everywhere. A map is written once.",
                )
            if "SYS_ADMIN" not in capabilities.of(child.pid).effective:
                return NotYet("The maps are right, but the capabilities are gone again.", "What takes them away?")
            if trouble := privilege_checks.powers_inside(child, name):
                return NotYet(f"The maps are right, but {trouble}.", "What else does your function do?")
            return Passed(
                f"Inside user:[{namespaces.inode(child.pid, 'user')}] process {child.pid} is 0 and has every "
                "capability; outside it is who it was. It was refused the lab host's name, and gave a name to a UTS "
                f"namespace of its own: {name}.",
                "Every capability counts in the user namespace it was got in, and in what belongs to that one. So "
                "anybody may be handed all of them.",
            )


class Keep(Exercise):
    """Capabilities, down to two."""

    name = "keep"
    title = "Keep exactly the capabilities that a web server needs"
    points = 2
    start = "Begin by finding out: which two calls of the server are refused to a process without capabilities?"
    hints = (
        (
            "Two things in the server are refused to ordinary users: a port below 1024, and another root. The table "
            "above names the capability for each. The rest can go, out of all five sets."
        ),
        (
            "The order matters: PR_CAPBSET_DROP takes SETPCAP, so the bounding set is trimmed before `capset`. "
            "`capabilities.mask` makes a mask of names, `capabilities.of` shows the sets."
        ),
        (
            "`needed = capabilities.mask((...))`; for each number up to the last capability that is not in it "
            "`prctl(PR_CAPBSET_DROP, number)`; `capset(needed, needed, 0)`; `prctl(PR_SET_NO_NEW_PRIVS, 1)`."
        ),
    )
    because = (
        "From the permitted set there is no way back; from the bounding set nothing can come back by executing a "
        "program; and no_new_privs closes the way by setuid files. Whoever takes over this server can listen on ports "
        "and call chroot, and that is all that its being root is worth."
    )

    def check(self, keep: Callable[[], object]) -> Verdict:
        """Call it in a child; read its five sets from outside; then let it serve a page."""
        before = privilege_checks.all_of_them()
        with temporary.Folder() as folder, spawn(os.getpid) as child:
            os.chmod(folder, 0o755)
            page = self.draw_name("page")
            Path(folder, "index.html").write_text(page)
            done = child.call(tried, keep)
            sets, sealed = capabilities.of(child.pid), privilege_checks.no_new_privs(child.pid)
            if mistake := privilege_checks.wrong_sets(sets, before, sealed, done):
                return mistake
            # What the process says of itself while it serves proves nothing: its sets, afterwards, are what counts.
            return (
                self._serves(child, folder, page)
                or _not_kept(child, before)
                or Passed(
                    f"Process {child.pid} listened on a port below 1024, went into its folder for good and served "
                    f"`{page}`, with {' and '.join(NEEDED)}; all others are gone from all "
                    "five sets.",
                    "The usual break-in into a server gives the attacker what the server may do. It may do little now.",
                )
            )

    def _serves(self, child: Child, folder: str, page: str) -> NotYet | None:
        port = self.draw_number(81, 999)
        done = child.call(tried, privilege_checks.serve_from, folder, port)
        if isinstance(done.error, PermissionError):
            listening = done.error.errno == errno.EACCES
            return NotYet(
                f"The server could not {f'listen on port {port}' if listening else 'call chroot'}: "
                f"{done.error.strerror}. It has: {', '.join(capabilities.of(child.pid).effective) or 'nothing'}.",
                "This one it does need. The table above says which capability the call takes.",
            )
        done.value_or_raise()
        with spawn(privilege_checks.ask, port) as client:
            child.call(privilege_checks.answer_one)
            served = client.call(privilege_checks.hear)
        if served != page:
            return NotYet(f"The server answered {served!r}, and the page is {page!r}.", "Is it another server's?")
        return None


def _not_kept(child: Child, before: capabilities.Sets) -> NotYet | None:
    """What the process that has served lacks, or has too much of, as the kernel has it."""
    sets = capabilities.of(child.pid)
    if lacking := [name for name in NEEDED if name not in sets.effective]:
        return NotYet(
            f"The process does not have {lacking[0]}, and without it there is no such server.",
            "Exactly two are to be kept, effective and permitted.",
        )
    if not namespaces.same("user", child.pid, host.pid()):
        return NotYet(
            "The process is root in a user namespace of its own: what it has counts for nothing on the lab host.",
            "Nothing needs to be unshared here. Only capabilities are to be given up.",
        )
    return privilege_checks.wrong_sets(
        sets, before, privilege_checks.no_new_privs(child.pid), InFork(child.pid, None, None, [])
    )


class Refuse(Exercise):
    """A filter by hand."""

    name = "refuse"
    title = "Refuse one system call with EPERM, and let unknown ones be ENOSYS"
    points = 3
    start = "Begin with the two lines that load `arch` and compare it; `ret allow` is a filter already."
    hints = (
        (
            "Three questions, in this order: by whose numbers is this call made? Is the number one that is known? "
            "Is it the one to refuse? Each is a comparison with a jump."
        ),
        (
            "`ld [arch]` before the first comparison and `ld [nr]` before the others. A jump names one label, for yes, "
            "or two, for yes and no. The four ends are `ret allow`, `ret errno #EPERM`, `ret errno #ENOSYS` and, for "
            "other architectures, `ret kill_process`."
        ),
        (
            "`ld [arch]`, `jeq #{MACHINE}, ours, kill`, `ours: ld [nr]`, `jgt #{last}, unknown`, "
            "`jeq #{call}, refused`, `ret allow`, and then `refused:`, `unknown:` and `kill:` with a `ret` each."
        ),
    )
    because = (
        "`arch` comes first, since the same number means another call on another architecture. One comparison with the "
        "last known number covers all that will ever be invented, and on amd64 the x32 calls as well, which have a "
        "high bit set. The rest is a list; libseccomp writes such lists for hundreds of calls."
    )

    def check(self, write_filter: Callable[[str, int], object]) -> Verdict:
        """Assemble what it returns; try every system call on paper, and three in the kernel."""
        filter_checks.require()
        known = filter_checks.numbers()
        call, last = self.random.choice(filter_checks.REFUSABLE), max(known.values())
        text = write_filter(call, last)
        if text is None:
            return NotAttempted("`write_filter()` returns nothing yet. " + self.start)
        code = filter_checks.assembled(text, known)
        if isinstance(code, NotYet):
            return code

        def decide(number: int, arch: int) -> str:
            return bpf.decision(bpf.run(code, number, arch))

        try:
            if mistake := filter_checks.wrong_on_paper(decide, call, last, known):
                return mistake
        except InvalidConfig as error:
            return NotYet(f"On paper, the filter cannot be carried out: {error}.", "Compare it with the example.")
        unknown = self.draw_number(last + 1, 1023)
        with spawn_closed(os.getpid) as child:
            done = child.call(tried, filter_checks.in_the_kernel, code, known[call], unknown)
            found = done.value_or_raise()
            filtered = procfs.status(child.pid)["Seccomp"] == "2"
        if not filtered or found != {"refused": "EPERM", "unknown": "ENOSYS", "allowed": "ok"}:
            return NotYet(
                f"On paper it is right, and in the kernel it gave {found}.", "This should not happen: report it."
            )
        return Passed(
            f"In the kernel `{call}` gave EPERM, a number that nobody knows gave ENOSYS, and getppid went through. On "
            "paper every call of this machine, every number to 1023 and the other architectures are as they should be.",
            "A filter is on its process for good, and on every child: no capability takes it off.",
        )
