"""What an exercise is: its name, its hints, and a check that looks at what the learner's function did.

A lab's exercises are classes in `labkit/course/exercises/labNN/exercises.py`. `check` is called with what the learner
hands to `lab.NAME.check(...)`; `labkit.course.framework.judge` calls it under a time limit and turns exceptions into
outcomes, so a check may raise whatever `spawn` raises.
"""

import os
import random
from typing import Any, ClassVar

from labkit.course.framework.outcomes import Verdict


class Exercise:
    """The base of every exercise. One object is made for each check, so parameters kept in it are fresh."""

    name: ClassVar[str]  #: as in `lab.NAME`
    title: ClassVar[str]  #: what is asked, in a few words
    points: ClassVar[int] = 1  #: 1 for a step, 2 for several, 3 where they must be found
    hints: ClassVar[tuple[str, ...]] = ()  #: a nudge, where to look, the line
    start: ClassVar[str] = ""  #: where to start, said when nothing was attempted
    because: ClassVar[str] = ""  #: why the solution is a good one, said under it
    seconds: ClassVar[float] = 10.0  #: how long one check may take
    skip_stubs: ClassVar[bool] = True  #: False where an empty function may be an answer
    in_room: ClassVar[bool] = False  #: True where a judge checks: the learner's functions are run in children only
    is_hidden: ClassVar[bool] = False  #: True where the learner is not to know what was tried
    seed: ClassVar[str] = ""  #: for parameters that are the same again; without one LABKIT_SEED is asked

    def __init__(self) -> None:
        seed = self.seed or os.environ.get("LABKIT_SEED")
        #: where random parameters come from: unforeseeable, unless a seed asks for the same ones again
        self.random: random.Random = (
            random.Random(f"{seed}:{type(self).__qualname__}") if seed else random.SystemRandom()
        )

    def check(self, *answers: Any, **named: Any) -> Verdict:
        """Look at what the learner's `answers` do and say which outcome that is. Written by each exercise."""
        raise NotImplementedError

    def draw_name(self, prefix: str = "box") -> str:
        """A name that nobody can foresee, such as `box-7f3a`: for a hostname, a file, a process."""
        return f"{prefix}-{self.random.randrange(0x1000, 0x10000):04x}"

    def draw_number(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        return self.random.randint(low, high)
