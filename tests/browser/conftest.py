"""A JupyterLab of its own and a Chromium that talks to nobody else, for the browser tests."""

import http.client
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from labkit import vm
from labkit.course.authoring import release
from labkit.course.commands import jupyter as serve
from labkit.files import state_folder

TOY = Path(__file__).parent.parent / "notebooks" / "data"
SECONDS_TO_START = 60
# Chromium looks for updates, field trials and a default search engine; the tests have no business on the network.
QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate,InterestFeedContentSuggestions,CertificateTransparencyComponentUpdater",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--disable-dev-shm-usage",
]


@dataclass(frozen=True)
class Jupyter:
    """A running JupyterLab."""

    address: str
    token: str
    folder: Path
    state: Path

    def url(self, notebook: str) -> str:
        """The address that opens one notebook, in a workspace of its own."""
        return f"{self.address}/doc/tree/{notebook}?token={self.token}"

    def end_kernels(self) -> None:
        """End every notebook's kernel, so that the next one opened begins with a kernel of its own."""
        for session in json.load(self._request("GET", "sessions")):
            self._request("DELETE", f"sessions/{session['id']}").close()

    def _request(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method, headers=headers)
        return urllib.request.urlopen(request, timeout=30)


@pytest.fixture(autouse=True)
def own_kernel(request: pytest.FixtureRequest) -> None:
    """No test opens a notebook whose kernel is still at what the test before it began."""
    name = "jupyter_in_vm" if "jupyter_in_vm" in request.fixturenames else "jupyter"
    request.getfixturevalue(name).end_kernels()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """JupyterLab on a free port of 127.0.0.1, opened on a copy of the labs and the toy lab."""
    place, command, environ = _prepared(tmp_path_factory)
    if os.geteuid() == 0:
        command.append("--allow-root")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "PYTEST"))}
    with _serving(place, command, inherited | environ, SECONDS_TO_START):
        yield place


@pytest.fixture(scope="session")
def jupyter_in_vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """The same in a User Mode Linux machine, as `./lab --vm` has it: for what takes cgroup v2 controllers."""
    if lack := vm.kinds()["uml"]:
        pytest.skip(f"no uml machine here: {lack}")
    place, command, environ = _prepared(tmp_path_factory)
    port = place.address.rpartition(":")[2]
    machine = [sys.executable, "-m", "labkit.vm", "--kind", "uml", "--memory", "1536", "--cwd", str(place.folder)]
    machine += ["--writable", str(place.folder), "--writable", str(place.state.parent), "--forward", f"{port}:{port}"]
    machine += [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
    inherited = {**os.environ, "PYTHONPATH": str(state_folder.checkout())}
    with _serving(place, [*machine, "--", *command, "--allow-root"], inherited, 3 * SECONDS_TO_START):
        yield place


def _prepared(factory: pytest.TempPathFactory) -> tuple[Jupyter, list[str], dict[str, str]]:
    """The folders of a JupyterLab, the command that starts it, and the environment that this needs."""
    folder = factory.mktemp("labs")
    for notebook in (state_folder.checkout() / "labs").glob("*.ipynb"):
        shutil.copy2(notebook, folder)
    for name, solved in (("toy.ipynb", True), ("untouched.ipynb", False)):
        text = release.text_of(release.build(TOY / "90_toy.md", solved=solved))
        (folder / name).write_text(text, encoding="utf-8")
    home = factory.mktemp("home")
    state = home / "state"
    state.mkdir()
    for name in state_folder.BUILT:
        if (state_folder.state() / name).is_dir():
            (state / name).symlink_to((state_folder.state() / name).resolve())
    settings = home / ".jupyter" / "lab" / "user-settings" / "@jupyterlab"
    for name, text in (
        ("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}'),
        ("notebook-extension/tracker", '{"windowingMode": "none"}'),  # every cell is in the page, seen or not
    ):
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    token, port = secrets.token_hex(16), _free_port()
    environ = {
        "HOME": str(home),
        "LABKIT_STATE": str(state),
        "PYTHONPATH": os.pathsep.join([str(state_folder.checkout()), str(TOY)]),
        "JUPYTER_TOKEN": token,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={folder}"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += ["--LabApp.extension_manager=readonly", "--LabApp.open_browser=False"]
    command += serve.encryption()
    return Jupyter(f"http://127.0.0.1:{port}", token, folder, state), command, environ


@contextmanager
def _serving(place: Jupyter, command: list[str], environ: dict[str, str], seconds: int) -> Iterator[None]:
    log = place.state.parent / "jupyter.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=place.folder
        )
    try:
        _wait_until_it_answers(f"{place.address}/api?token={place.token}", server, log, seconds)
        yield
    finally:
        _end(server)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_answers(url: str, server: "subprocess.Popen[bytes]", log: Path, seconds: int) -> None:
    pidfd = os.pidfd_open(server.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, http.client.HTTPException, OSError):
                if poll.poll(200):  # waits a moment, and notices at once when the server ends
                    break
    finally:
        os.close(pidfd)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End JupyterLab as a user does, so that it ends its kernels, and they their lab hosts."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window and without the network."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    arguments = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else QUIET
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> str:
    """JupyterLab's two themes."""
    name: str = request.param
    return name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add to a failure what the page said, and JupyterLab in its log: the machine that saw it may be gone."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    if report.failed and call.when == "call" and "page" in fixtures:
        with suppress(Exception):
            report.sections.append(("The page", fixtures["page"].inner_text("body", timeout=5000)[-3000:]))
        for name in {"jupyter", "jupyter_in_vm"} & fixtures.keys():
            log = fixtures[name].state.parent / "jupyter.log"
            report.sections.append(("JupyterLab's log", log.read_text(errors="replace")[-3000:]))
    return report


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of 1280 by 800 pixels; at the end a screenshot of it is kept in LABKIT_SCREENSHOTS, if that is set."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(30_000)
    page = context.new_page()
    yield page
    picture(page, re.sub(r"\W+", "-", request.node.name).strip("-"))
    context.close()


def picture(page: Page, name: str) -> Path | None:
    """Keep a screenshot, if LABKIT_SCREENSHOTS names a folder."""
    wanted = os.environ.get("LABKIT_SCREENSHOTS")
    if not wanted:
        return None
    Path(wanted).mkdir(parents=True, exist_ok=True)
    path = Path(wanted) / f"{name}.png"
    page.screenshot(path=path)
    return path
