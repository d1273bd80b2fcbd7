"""What a program says of itself; that it does what it says is tests/kernel/test_program.py."""

from labkit import mounts, rootfs
from labkit.program import Program


def test_a_program_reads_like_a_trace() -> None:
    program = Program()
    tree = program.call("open_tree", -100, "/srv", 1, returns="tree")
    program.call("fchdir", tree)
    program.call("execve", "/bin/true", ("true", "-x"), ("A=b",))
    assert str(program).splitlines() == [
        "open_tree(-100, '/srv', 1) = tree",
        "fchdir(tree)",
        "execve('/bin/true', ['true', '-x'], ['A=b'])",
    ]


def test_every_step_of_the_default_plan_can_be_said_in_words() -> None:
    said = [mounts.describe(step) for step in rootfs.DEFAULT_PLAN]
    assert "mount -t proc -o nosuid,nodev,noexec proc /proc" in said
    assert "mknod /dev/null c 1 3" in said
    assert "ln -s /proc/self/fd /dev/fd" in said
    assert len(set(said)) == len(said)
    assert mounts.describe(("bind", "/srv", "data", ("ro",))) == "mount --rbind -o ro /srv /data"


def test_writing_a_plan_makes_no_system_call_and_names_its_steps() -> None:
    program = Program()
    rootfs.write_entry(program, "/nowhere/at/all", rootfs.DEFAULT_PLAN)
    assert program.calls[-1].name == "umask"
    assert "mount -t proc -o nosuid,nodev,noexec proc /proc" in {call.step for call in program.calls}
    assert [call.name for call in program.calls].index("pivot_root") > [call.name for call in program.calls].index(
        "fsopen"
    )
