"""The doctor: what this machine can do, which labs that opens, and how to mend what is missing.

from labkit.course.doctor import doctor
doctor.report()          # the tables, in a notebook or a terminal
doctor.findings(machine) # the same as data
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table

from labkit.arguments import Parser
from labkit.course.doctor.facts import Machine, examine
from labkit.course.doctor.findings import Finding, Status, findings
from labkit.files import state_folder

STYLES: dict[Status, str] = {"yes": "green", "partly": "yellow", "no": "red", "-": ""}

# What depends on the computer under a machine, or on the moment; every lab has a way without.
OPTIONAL = ("KVM", "virtual machines", "memory", "left over")


@dataclass(frozen=True)
class LabState:
    """Whether a lab can run here; `lacks` names the findings that are in its way."""

    number: str
    title: str
    exists: bool
    lacks: tuple[str, ...]


# Number, title, and what the lab needs: topics of the findings.
LABS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("00", "Is this machine ready?", ("namespaces",)),
    ("01", "What is a server?", ("  net",)),
    ("02", "Several servers, one machine", ("  net",)),
    ("03", "Who touches the hardware?", ("namespaces",)),
    ("04", "A computer inside a process", ("namespaces",)),
    ("05", "A name of one's own", ("namespaces",)),
    ("06", "Process number 1", ("namespaces", "new /proc")),
    ("07", "A root of one's own", ("namespaces", "new /proc", "root filesystems")),
    ("08", "Layers", ("overlay", "root filesystems")),
    ("09", "Sharing fairly", ("cgroup controllers",)),
    ("10", "A network of one's own", ("  net",)),
    ("11", "Root that isn't", ("user namespaces",)),
    ("12", "Your container", ("namespaces", "overlay", "cgroup controllers", "  net")),
    ("13", "The runtime", ("namespaces", "overlay", "cgroup controllers")),
    ("14", "Images", ("namespaces", "overlay")),
    ("15", "The engine, its API, the CLI", ("namespaces", "overlay", "  net")),
    ("16", "Bare metal, VM and container", ("namespaces", "overlay", "cgroup controllers", "  net")),
)


def labs(found: Iterable[Finding]) -> list[LabState]:
    """Which labs the findings open."""
    status = {finding.topic: finding.status for finding in found}
    folder = state_folder.checkout() / "labs"
    return [
        LabState(
            number,
            title,
            any(folder.glob(f"{number}_*.ipynb")),
            tuple(need.strip() for need in needs if status.get(need) == "no"),
        )
        for number, title, needs in LABS
    ]


class Report(JupyterMixin):
    """The doctor's tables; shows itself in a terminal and in a notebook."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.findings = findings(machine)
        self.labs = labs(self.findings)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title="This machine", title_justify="left", expand=False)
        for column in ("", "can", "what was seen", "how to mend"):
            table.add_column(column, overflow="fold")
        for finding in self.findings:
            style = STYLES[finding.status]
            status = f"[{style}]{finding.status}[/]" if style else finding.status
            table.add_row(finding.topic, status, _plain(finding.seen), _plain(finding.mend))
        yield table
        table = Table(title="The labs", title_justify="left")
        for column in ("lab", "", "runs here", "lacks"):
            table.add_column(column, overflow="fold")
        for lab in self.labs:
            runs = "planned" if not lab.exists else "[red]no[/]" if lab.lacks else "[green]yes[/]"
            table.add_row(lab.number, _plain(lab.title), runs, _plain(", ".join(lab.lacks)))
        yield table

    def as_json(self) -> str:
        """The facts, the findings and the labs, for a program."""
        data = {
            "machine": dataclasses.asdict(self.machine),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "labs": [dataclasses.asdict(lab) for lab in self.labs],
        }
        return json.dumps(data, indent=2)

    def lacking(self) -> list[str]:
        """What a machine must have that is made for the course, and this one has not."""
        short = [f"{found.topic.strip()} ({found.seen})" for found in self.findings if found.status in ("no", "partly")]
        short = [text for text in short if not text.startswith(OPTIONAL)]
        if "io" not in self.machine.cgroups.delegated:
            short.append("the cgroup controller io")
        return short

    @property
    def exit_code(self) -> int:
        """0 unless no lab at all can run here."""
        existing = [lab for lab in self.labs if lab.exists] or self.labs
        return 0 if any(not lab.lacks for lab in existing) else 1


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def report() -> Report:
    """Examines this machine now."""
    return Report(examine())


def _try_machines() -> None:
    """Boot one virtual machine of each kind, where that has not been tried yet."""
    from labkit.vm import run_command

    if run_command.untried():
        print("Booting a virtual machine of each kind, once, to see which runs here ...", file=sys.stderr, flush=True)
        run_command.kinds()


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="./lab doctor", description="What this machine can do, and how to mend the rest.")
    parser.add_argument("--json", action="store_true", help="the same for a program")
    parser.add_argument(
        "--strict", action="store_true", help="fail unless all of it is there, as on the course's reference machine"
    )
    options = parser.parse_args(argv)
    _try_machines()
    found = report()
    if options.json:
        print(found.as_json())
    else:
        Console().print(found)
    if options.strict and (short := found.lacking()):
        print(
            f"lab: this is not the machine that the course is made for; it lacks {'; '.join(short)}.", file=sys.stderr
        )
        return 1
    return found.exit_code
