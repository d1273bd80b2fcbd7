"""A list of system calls that a child makes without Python between clone3(2) and execve(2)."""

from labkit.program.memory import Block, Call, Value
from labkit.program.program import CallFailed, DiedBeforeExecve, Program, how_it_ended

__all__ = ["Block", "Call", "CallFailed", "DiedBeforeExecve", "Program", "Value", "how_it_ended"]
