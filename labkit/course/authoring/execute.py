"""Run a notebook as JupyterLab would, and keep of its outputs what is the same every time."""

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_WIDGET = "application/vnd.jupyter.widget-view+json"


VM_MEMORY_MIB = 1536


class CellFailed(Exception):
    """A cell of a notebook raised; says which, and with what."""


def execute(notebook: NotebookNode, folder: Path, seconds_per_cell: int = 120) -> NotebookNode:
    """Run all cells of `notebook` in `folder`, in a new kernel with a state folder of its own; return it with outputs.

    `CellFailed`: a cell raised, or took longer than `seconds_per_cell`.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    with tempfile.TemporaryDirectory(prefix="labkit-") as state:
        client = NotebookClient(
            notebook,
            timeout=seconds_per_cell,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            store_widget_state=False,
        )
        try:
            # An event loop of its own, closed at the end; nbclient's synchronous call would leave one open for good.
            asyncio.run(client.async_execute(env=environment(Path(state))))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise CellFailed(_ANSI.sub("", str(error))) from None
    return notebook


def execute_in_vm(notebook: NotebookNode, folder: Path, seconds_per_cell: int = 240) -> NotebookNode:
    """As `execute`, in a virtual machine: for a lab that needs what this machine lacks.

    `Unsupported`: no virtual machine can run here either. `CellFailed`: as above.
    """
    from labkit import vm
    from labkit.files import state_folder

    with tempfile.TemporaryDirectory(prefix="labkit-") as shared:
        file = Path(shared, "notebook.ipynb")
        nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
        done = vm.run(
            [sys.executable, "-m", "labkit.course.authoring.execute", str(file), str(folder), str(seconds_per_cell)],
            cwd=folder,
            env={
                "PYTHONPATH": str(state_folder.checkout()),
                "LABKIT_STATE": str(state_folder.state()),
                "HOME": str(Path.home()),
            },
            memory_mib=VM_MEMORY_MIB,
            writable=[shared],
            capture=True,
        )
        if done.exit_code:
            raise CellFailed(done.stdout.strip() or done.stderr.strip())
        return nbformat.read(file, as_version=4)  # type: ignore[no-any-return,no-untyped-call]


def _main(file: Path, folder: Path, seconds_per_cell: int) -> int:
    """In the virtual machine: execute the notebook in `file` and write it back with its outputs."""
    try:
        notebook = execute(nbformat.read(file, as_version=4), folder, seconds_per_cell)  # type: ignore[no-untyped-call]
    except CellFailed as error:
        print(error)
        return 1
    nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
    return 0


def environment(state: Path) -> dict[str, str]:
    """The environment of a kernel that runs a solved notebook: fresh progress, the built root filesystems, one seed."""
    from labkit.files import state_folder

    # What was built (root filesystems, kernels) is taken from the real state folder; progress is not.
    built = state_folder.state().resolve()
    for entry in state_folder.BUILT:
        if (built / entry).is_dir() and not (state / entry).exists():
            state.mkdir(parents=True, exist_ok=True)
            (state / entry).symlink_to(built / entry)
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTEST_CURRENT_TEST", "PYTEST_VERSION")}
    checkout = str(state_folder.checkout())
    inherited = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = os.pathsep.join([checkout, inherited] if inherited else [checkout])
    environ["LABKIT_STATE"] = str(state)
    environ["LABKIT_SEED"] = "solved"
    return environ


def normalise(notebook: NotebookNode, hide: dict[str, str]) -> NotebookNode:
    """Take out of an executed notebook what differs from run to run: times, widgets' ids, paths of this machine.

    `hide` says what stands for a path, such as `{"/home/me/labkit": "<checkout>"}`.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        outputs: list[NotebookNode] = []
        for output in cell.outputs:
            output.pop("transient", None)
            if "data" in output:
                output.data.pop(_WIDGET, None)
                if not output.data:
                    continue
            _append(outputs, output)
        cell.outputs = [_hidden(output, hide) for output in outputs]
    return notebook


def _append(outputs: list[NotebookNode], output: NotebookNode) -> None:
    """Add an output; neighbouring pieces of one stream become one, since how they are cut is chance."""
    last = outputs[-1] if outputs else None
    if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
        last.text += output.text
    else:
        outputs.append(output)


def _hidden(value: Any, hide: dict[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in sorted(hide.items(), key=lambda item: -len(item[0])):
            value = value.replace(path, name)
        return value
    if isinstance(value, list):
        return [_hidden(item, hide) for item in value]
    if isinstance(value, dict):
        made = {key: _hidden(item, hide) for key, item in value.items()}
        return NotebookNode(made) if isinstance(value, NotebookNode) else made  # type: ignore[no-untyped-call]
    return value


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
