"""JupyterLab in a machine, used from outside through the forwarded port: its API, a page, and a kernel's websocket."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Traces
from tests.vm.test_command import CLI, free_port

websocket = pytest.importorskip("websocket", reason="the package websocket-client comes with JupyterLab")

pytestmark = pytest.mark.timeout(300)

TOKEN = "let-me-in"


class Server:
    """What a browser does, at one port of this machine."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    def ask(self, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            f"http://{self.address}{path}", data=data, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def run_cell(self, kernel: str, code: str) -> str:
        """Execute code in a kernel over its websocket; what it printed."""
        message = uuid.uuid4().hex
        channel = websocket.create_connection(
            f"ws://{self.address}/api/kernels/{kernel}/channels?token={TOKEN}", timeout=120
        )
        header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        channel.send(json.dumps(request))
        printed = ""
        while True:
            reply: dict[str, Any] = json.loads(channel.recv())
            if reply["parent_header"].get("msg_id") != message:
                continue
            if reply["msg_type"] == "stream":
                printed += reply["content"]["text"]
            if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                channel.close()
                return printed


def test_jupyterlab_in_the_machine(quick: str, traces: Traces, tmp_path: Path) -> None:
    port = free_port()
    log = (tmp_path / "log").open("w+")
    lab = ["-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=8888", "--allow-root"]
    command = [sys.executable, *lab, f"--IdentityProvider.token={TOKEN}"]
    forward = ["--kind", quick, "--forward", f"{port}:8888", "--cwd", str(Path(__file__).parent)]
    server = Server(port)
    with (
        log,
        subprocess.Popen([*CLI, *forward, "--", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log) as caller,
    ):
        try:
            end = time.monotonic() + 200
            while True:
                try:
                    status = json.loads(server.ask("/api/status"))
                    break
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    assert caller.poll() is None, Path(log.name).read_text()
                    assert time.monotonic() < end, Path(log.name).read_text()
                    time.sleep(0.2)
            assert "kernels" in status
            assert b"JupyterLab" in server.ask("/lab")
            kernel = json.loads(server.ask("/api/kernels", b"{}"))["id"]
            printed = server.run_cell(kernel, "import socket; print(socket.gethostname(), len('x' * 300000))")
            assert printed == "labvm 300000\n"
            long = server.run_cell(kernel, "print('x' * 300000)")
            assert len(long) == 300001
        finally:
            caller.terminate()
