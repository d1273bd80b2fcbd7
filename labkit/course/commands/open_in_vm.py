"""`./lab --vm`: the course in a microVM. JupyterLab runs inside; its port is forwarded from 127.0.0.1 here.

Notebooks and progress are this machine's own, shared writable; everything else that a lab changes goes with the VM.
"""

import sys
from collections.abc import Sequence

from labkit import vm
from labkit.arguments import Parser
from labkit.course.commands import jupyter
from labkit.files import state_folder

MEMORY_MIB = 2048
PORTS = range(8888, 8988)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="./lab --vm", description="Open the course in a microVM.")
    parser.add_argument("--port", type=int)
    parser.add_argument("--kind", choices=["uml", "qemu"])
    options = parser.parse_args(argv)
    port = options.port or next((port for port in PORTS if jupyter.port_is_free(port)), PORTS.start)
    labs, state = state_folder.checkout() / "labs", state_folder.state()
    program = [sys.executable, "-I", str(state_folder.checkout() / "labkit/course/commands/jupyter.py")]
    print("Starting the virtual machine; JupyterLab needs half a minute in it. Ctrl-C ends both.", flush=True)
    return vm.run(
        [*program, "--no-vm", "--no-browser", "--port", str(port)],
        kind=options.kind,
        cwd=labs,
        env={"LABKIT_STATE": str(state), "LABKIT_IN_VM": "1", "HOME": "/run"},
        memory_mib=MEMORY_MIB,
        writable=[labs, state],
        forward=[(port, port)],
    ).exit_code
