"""What was measured, kept for another notebook: a file for each kind, in the course's state folder.

A file that cannot be understood is as good as none; one that cannot be written costs the record and never the lab.
"""

import json
import os
import platform
from collections.abc import Mapping
from typing import Any

from labkit.course.framework import rendering
from labkit.files import atomic, state_folder

VERSION = 1


def read(file: str) -> dict[str, Any]:
    """What is kept in `file`, by the name of the place where it was measured, in the order of keeping."""
    try:
        found = json.loads((state_folder.state() / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if isinstance(found, dict) and found.get("version") == VERSION and isinstance(found.get("kept"), dict):
        return dict(found["kept"])
    return {}


def add(file: str, name: str, data: Mapping[str, Any]) -> None:
    """Keep `data` in `file` under `name`, in place of what was kept there. Where that fails, say so and go on."""
    folder, found = state_folder.state(), {**read(file), name: data}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"version": VERSION, "kept": found}, ensure_ascii=False)
        atomic.replace(folder / file, text + "\n")
    except OSError as error:
        said = f"The results cannot be kept ({error.strerror}: {folder}). The lab goes on without."
        rendering.display(said, rendering.box("not checked", "", rendering.inline(said)))


def machine_line() -> str:
    """This machine in one line: processor, number of CPUs, kernel, memory. Figures stand beside it."""
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
