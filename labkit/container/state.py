"""The states of a container, and what may be done in each. OCI runtime.md, "State" and "Lifecycle".

::

    create ──▶ created ──start──▶ running ◀──pause/resume──▶ paused
                  │                  │                          │
                  └──kill──▶ stopped ◀── its first process ends ┘
"""

from enum import StrEnum


class State(StrEnum):
    """What a container is doing."""

    CREATED = "created"  # all is set up, and the command not executed yet
    RUNNING = "running"
    PAUSED = "paused"  # frozen: no process of it gets the processor
    STOPPED = "stopped"

    @property
    def can_start(self) -> bool:
        """Whether its command waits to be executed."""
        return self is State.CREATED

    @property
    def can_exec(self) -> bool:
        """Whether a further process may join it."""
        return self in (State.CREATED, State.RUNNING)

    @property
    def can_pause(self) -> bool:
        """Whether there is something to freeze."""
        return self is State.RUNNING

    @property
    def can_resume(self) -> bool:
        """Whether it is frozen."""
        return self is State.PAUSED

    @property
    def can_kill(self) -> bool:
        """Whether it has a process that a signal could reach."""
        return self is not State.STOPPED

    @property
    def can_delete(self) -> bool:
        """Whether nothing of it runs."""
        return self is State.STOPPED
