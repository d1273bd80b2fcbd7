"""The exercises of lab 02: percentiles, a file system of one's own, and what isolation solves."""

import os
import statistics
from collections.abc import Callable
from typing import Any

from labkit import procfs, temporary
from labkit.course.exercises.common.mount_stand_in import StandIn
from labkit.course.exercises.lab02 import troubles
from labkit.course.exercises.lab02.shared_store import OneStore, apart_enough
from labkit.course.experiments.noise.noise import percentile
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import run_in_child

__all__ = ["P99", "Apart", "Sort"]


class P99(Exercise):
    """The latency that 99 of 100 requests do not exceed."""

    name = "p99"
    title = "The latency that 99 of 100 do not exceed"
    start = "Begin by putting the samples in order: `sorted(latencies)`."
    hints = (
        (
            "Put them in a row, the quickest first. How many of them must stand to the left of your answer, or be the "
            "answer itself?"
        ),
        (
            "That number is 99 per cent of how many there are, rounded *up*: of 250 it is 248, since 247 would be less "
            "than 99 per cent. And the first of a list is number 0."
        ),
        "`sorted(latencies)[math.ceil(len(latencies) * 99 / 100) - 1]`",
    )
    because = (
        "The answer is a latency that some request really had, and the promise holds by counting: at least 99 of 100 "
        "were no slower. A value *between* two samples would be a guess about requests that nobody made."
    )

    def check(self, p99: Callable[[list[float]], object]) -> Verdict:
        """Ask for the p99 of samples of several lengths, in no order, and look which mistake the answer fits."""
        lengths = (100 * self.draw_number(2, 6) + 60, 100 * self.draw_number(2, 6), 100, self.draw_number(5, 20))
        lists = [self._samples(length) for length in lengths]
        for samples in lists:
            answer, right = run_in_child(p99, list(samples)), percentile(samples, 99)
            if isinstance(answer, bool) or not isinstance(answer, int | float):
                return NotYet(
                    f"For {len(samples)} samples the function returned {answer!r:.40}.",
                    "One of the latencies is asked for: a number. Does every path through it end in a `return`?",
                )
            if abs(answer - right) > 1e-9:
                return _other_than_p99(sorted(samples), samples, float(answer))
        samples, right = lists[1], percentile(lists[1], 99)
        return Passed(
            f"Of {len(samples)} requests {sum(one <= right for one in samples)} took {right} ms or less, and the mean "
            f"of them all is {statistics.fmean(samples):.2f} ms. The other lengths were right too.",
            "Who looks at the mean does not see the requests that people complain about.",
        )

    def _samples(self, length: int) -> list[float]:
        """Latencies as servers have them, all different: most are quick, some are not."""
        quick = self.random.sample(range(100, 900), length - length // 20 - 2)
        slow = self.random.sample(range(2000, 90000), length // 20 + 2)
        samples = [value / 100 for value in (*quick, *slow)]
        self.random.shuffle(samples)
        return samples


def _other_than_p99(ordered: list[float], samples: list[float], answer: float) -> Verdict:
    """What the answer is, if it is not the p99."""
    length, right = len(ordered), percentile(ordered, 99)
    rank = ordered.index(right) + 1
    within = sum(one <= answer for one in ordered)
    said = f"For {length} samples your function returned {answer:.6g}."
    if abs(answer - statistics.fmean(ordered)) < 1e-6:
        return NotYet(
            f"{said} That is their mean, and {length - within} of the {length} took longer.",
            "The mean says nothing about how many were slow: it mixes them with those that were quick. Do not add; "
            "put in order, and count.",
        )
    if answer == samples[rank - 1] or answer == samples[min(rank, length - 1)]:
        return NotYet(
            f"{said} It stands at the right place of the list as it was given, but {within} of {length} did not take "
            "longer.",
            "The requests are in the order in which they were made. In which order must they be for a place in the "
            "list to mean anything?",
        )
    if answer in (rank, rank - 1, length * 0.99):
        return NotYet(f"{said} That is a place in the list.", "Asked for is the latency that stands there.")
    if abs(answer - ordered[-1] * 0.99) < 1e-6:
        return NotYet(
            f"{said} That is 99 per cent of the largest.", "It is 99 per cent of the *requests* that are to be counted."
        )
    if answer == ordered[-1] and within > rank:
        return NotYet(
            f"{said} That is the slowest of all {length}. A smaller one is already not exceeded by {rank} of them.",
            "One single request decides about the maximum. Which is the *smallest* latency that at least 99 of 100 did "
            "not exceed? Mind that a list begins with number 0.",
        )
    if answer not in ordered:
        if ordered[0] < answer < ordered[-1]:
            return NotYet(
                f"{said} No request took that long: it lies between two that were measured.",
                "Some libraries estimate a value between two samples (numpy's `percentile` does so unless it is told "
                '`method="inverted_cdf"`). Here a latency is asked for that at least 99 of 100 did not exceed. Which '
                "of the samples is it?",
            )
        return NotYet(f"{said} No sample is as small or as large as that.", "The answer is one of the samples.")
    if within > rank:
        return NotYet(
            f"{said} That is number {within} in order. Number {rank} is smaller, and {rank} of {length} are already 99 "
            "per cent.",
            "Asked for is the *smallest* that will do. Does your place count from 0 or from 1?",
        )
    return NotYet(
        f"{said} {within} of {length} took no longer: {100 * within / length:.4g} per cent.",
        "At least 99 per cent are asked for. How many requests are that, rounded up? And mind that a list begins with "
        "number 0.",
    )


class Apart(Exercise):
    """A file system of their own for the uploads."""

    name = "apart"
    title = "Uploads that cannot fill the database's disk"
    points = 2
    seconds = 30.0
    start = "Begin with the call that made the small disk above: `mount`. On which folder shall the new one appear?"
    hints = (
        (
            "The limit of a file system is its size, and everybody in it shares that. So who is to be kept from "
            "filling it must have another one. Who is that here?"
        ),
        (
            "`mount(source, folder, kind, flags, options)`: a file system of the kind `tmpfs` appears on `folder`. The "
            "option `size=64m` gives it 64 MiB; without it, it may take half of the machine's memory."
        ),
        '`mount("uploads", uploads, "tmpfs", 0, f"size={mib}m")`',
    )
    because = (
        "It is the one who writes without bounds that gets a limit. The database's files stay where they are: a file "
        "system that was mounted over them would hide them."
    )

    def check(self, apart: Callable[[str, int], object]) -> Verdict:
        """Have it done in a stand-in for the lab host; then look at the mounts, and upload until nothing more fits."""
        mib = self.draw_number(3, 9)
        with (
            temporary.Folder() as folder,
            StandIn() as town,
            OneStore(town, folder, self.draw_name("accounts")) as shop,
        ):
            with town.spawn(apart, shop.uploads, mib) as child:
                own_mounts = procfs.namespace_inode(child.pid, "mnt") != procfs.namespace_inode(town.pid, "mnt")
                inside = [one.mount_point for one in procfs.mountinfo(child.pid)]
                hidden = own_mounts and os.path.realpath(shop.uploads) in inside
            return apart_enough(shop, mib, hidden)


class Sort(Exercise):
    """Eight troubles, and what helps against them."""

    name = "sort"
    title = "Sort eight troubles"
    start = 'Begin with one that you have seen in this lab: what would have helped? `"port": "own"`, for instance.'
    hints = (
        (
            "Three questions for each. Do two want the *same thing*, though each could have one to itself? Does one "
            "take *too much* of something that must be shared? Or would it have happened to a server all alone?"
        ),
        (
            'What there can be two of, each can have its own: `"own"`. What there is one of, and which can be measured '
            'out, can have a limit: `"limit"`. A fault in a server itself, or in what it cannot do without, stays: '
            '`"no"`.'
        ),
        (
            "Ports, files and libraries can be each one's own. Processor time and memory can be limited. Against a "
            "program's own bug, a missing partner and a machine without power, no wall helps."
        ),
    )
    because = (
        "Isolation is about what is shared. It gives each their own where that is possible, and a share where it is "
        "not. It mends no program, and replaces no second machine."
    )

    def check(self, sorted_troubles: Any) -> Verdict:
        """Go through the eight; the first principle that was misunderstood is told, and not where."""
        return troubles.sorted_well(sorted_troubles)
