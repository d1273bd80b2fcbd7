"""Results that outlive their notebook: kept by the name of the place where they were measured, with the machine's.

They are in `noise.json` in the course's state folder. A file that cannot be understood is as good as none; one that
cannot be written costs the record and never the lab.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.lab import show, wholefile
from labkit.lab.noise.measured import Result

VERSION = 1


@dataclass(frozen=True)
class Kept:
    """What was measured in one place: the machine, as one line, and the result of each victim by its name."""

    machine: str
    results: dict[str, Result]


def keep(place: str, results: Mapping[str, Result], *, machine: str = "") -> None:
    """Store the results as those of `place`, such as "bare metal"; what was kept of it before is replaced.

    `machine`: where they were measured, if it is not this one.
    """
    found = _read()
    data = {name: result.as_data() for name, result in results.items()}
    found[place] = {"machine": machine or machine_line(), "results": data}
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        wholefile.replace(_file(), json.dumps({"version": VERSION, "kept": found}, ensure_ascii=False) + "\n")
    except OSError as error:
        text = f"The results cannot be kept ({error.strerror}: {_file().parent}). The lab goes on without."
        show.display(text, show.box("not checked", "", show.inline(text)))


def kept() -> dict[str, Kept]:
    """All that was kept, by place, in the order in which the places were first kept."""
    found = {}
    for place, data in _read().items():
        try:
            results = {str(name): Result.from_data(one) for name, one in data["results"].items()}
            found[place] = Kept(str(data["machine"]), results)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def draw_kept(*places: str, title: str = "How long a request takes") -> None:
    """Draw what was kept of `places`, or of all, side by side; in a terminal, print the tables."""
    from labkit.lab.views.servers_view import draw

    found = kept()
    chosen = {place: one for place, one in found.items() if place in places or not places}
    if not chosen:
        text = f"Nothing was kept yet{' of ' + ', '.join(places) if places else ''}: `noise.keep` does that."
        show.display(text, show.box("not attempted", "", show.inline(text)))
        return
    draw(chosen, title)


def machine_line() -> str:
    """This machine in one line: processor, number of CPUs, kernel, memory."""
    cpus, memory_bytes = len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{_processor()}, {cpus} CPU{'s' if cpus != 1 else ''}, Linux {platform.release()}, "
        f"{memory_bytes / 2**30:.0f} GiB of memory"
    )


def _processor() -> str:
    """Its model; where the kernel does not say (as on arm64), its architecture."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _file() -> Path:
    return paths.state() / "noise.json"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if isinstance(found, dict) and found.get("version") == VERSION and isinstance(found.get("kept"), dict):
        return dict(found["kept"])
    return {}
