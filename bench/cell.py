"""A real notebook kernel, driven as JupyterLab drives one, in whose cells containers are run."""

import os
from functools import partial
from typing import Any, Self

from bench.peers import Peer
from bench.sampling import Sample, Way
from bench.ways import LABKIT, Ways
from labkit.files import state_folder

_CELL_SECONDS = 60
_PREPARE = """
import subprocess, sys, time
sys.path.insert(0, {checkout!r})
from labkit.container import run
"""
# Both as one would write them in a cell. What Jupyter itself needs for a cell, several milliseconds, is not counted.
_RUN = {
    "labkit": "run(['true'])",
    "spawned": "subprocess.run({argv!r}, stdin=open({stdin!r}), check=True)",
}
_TIMED = "_begun = time.perf_counter(); {what}; _took = time.perf_counter() - _begun"


class Notebook:
    """A kernel; as a context manager it is shut down on leaving. Without `ways` there is none."""

    def __init__(self, ways: Ways | None) -> None:
        self._ways = ways

    def __enter__(self) -> Self:
        if self._ways is None:
            return self
        from jupyter_client.manager import KernelManager

        # On sockets of the file system rather than TCP: ours alone, as the folder is.
        socket_path = str(self._ways.work / "kernel")
        self._manager = KernelManager(connection_file=f"{socket_path}.json", transport="ipc", ip=socket_path)
        # Nothing of the user's own IPython settings, and no entry in their history.
        environment = dict(os.environ) | {"IPYTHONDIR": str(self._ways.work / "ipython")}
        self._manager.start_kernel(env=environment, extra_arguments=["--HistoryManager.enabled=False"])
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        try:
            self._client.wait_for_ready(timeout=_CELL_SECONDS)
            self.execute(_PREPARE.format(checkout=str(state_folder.checkout())))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._ways is not None:
            self._client.stop_channels()
            self._manager.shutdown_kernel(now=False)
            self._manager.cleanup_resources()

    def running_true(self) -> dict[str, Way]:
        """Each way of running `true` from a cell; none without a kernel."""
        if self._ways is None:
            return {}
        ways: dict[str, Way] = {LABKIT: lambda _: self._timed(_RUN["labkit"])}
        for peer in self._ways.peers:
            if peer.reason is None:
                ways[peer.name] = partial(self._spawned, peer)
        return ways

    def _spawned(self, peer: Peer, number: int) -> Sample:
        return self._timed(_RUN["spawned"].format(argv=peer.run(number), stdin=peer.stdin))

    def _timed(self, what: str) -> Sample:
        return Sample(self.execute(_TIMED.format(what=what), "_took"))

    def execute(self, code: str, expression: str = "None") -> Any:
        """Run a cell; return the value of `expression`, a number, afterwards. RuntimeError: the cell raised."""
        reply = self._client.execute_interactive(
            code,
            user_expressions={"value": expression},
            timeout=_CELL_SECONDS,
            store_history=False,
            output_hook=lambda _: None,
        )["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
        text = reply["user_expressions"]["value"]["data"]["text/plain"]
        return None if text == "None" else float(text)
