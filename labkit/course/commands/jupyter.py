"""Opens the course in JupyterLab. Run by path from `./lab`, so that a later start costs no more than JupyterLab itself.

JupyterLab listens on 127.0.0.1 only, asks for a token, and needs no network: it neither looks for updates nor for news.
"""

import fcntl
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT))

from labkit.arguments import Parser  # noqa: E402  # run by path

STATE = Path(os.environ.get("LABKIT_STATE") or CHECKOUT / ".lab")

AS_ROOT = (
    "You are root: the labs work all the same and keep to a lab host of their own, "
    "but what a cell does outside it is done to this machine as root."
)
CANNOT = (
    "This kernel lets {who} make no namespaces, which labs 05 to 07 need. "
    "./lab doctor says why and how to mend it; ./lab --vm opens the course in a small virtual machine."
)
SECONDS_TO_ANSWER = 30
SECONDS_TO_BEGIN = 60  # from the start of JupyterLab until it listens, on a slow machine


def parser() -> Parser:
    parser = Parser(
        prog="./lab",
        description="Open the course in JupyterLab.",
        epilog="./lab --help lists the commands. What follows -- goes to JupyterLab.",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    parser.add_argument(
        "--port", type=int, help="listen on this port of 127.0.0.1 (default: 8888, or the next free one)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--vm", action="store_true", default=None, help="run the labs in a small virtual machine")
    where.add_argument("--no-vm", action="store_false", dest="vm", help="run them on this kernel and do not ask")
    return parser


def first_lab() -> str:
    """The notebook to open, by its name in `labs/`."""
    return min((path.name for path in (CHECKOUT / "labs").glob("[0-9]*.ipynb")), default="")


def jupyter_arguments(port: int | None, browser: bool) -> list[str]:
    """JupyterLab's arguments. They are weightier than any configuration file of the user's."""
    arguments = [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={CHECKOUT / 'labs'}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        "--Application.log_level=WARN",
    ]
    if first_lab():
        arguments.append(f"--LabApp.default_url=/lab/tree/{first_lab()}")
    if port is not None:
        arguments += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not browser:
        arguments.append("--no-browser")
    if os.getuid() == 0:
        arguments.append("--allow-root")
    return arguments + codespace()


def codespace() -> list[str]:
    """In a GitHub Codespace: have the page that its owner's browser shows talk to kernels; nothing elsewhere.

    The page comes from a host name of GitHub's, one per port, and is forwarded to 127.0.0.1 here; JupyterLab refuses
    what comes from another host name than its own. Both variables are set in every codespace.
    """
    name, domain = (os.environ.get(key, "") for key in ("CODESPACE_NAME", "GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN"))
    if not (name and domain):
        return []
    return [f"--ServerApp.allow_origin_pat=https://{re.escape(name)}-[0-9]+\\.{re.escape(domain)}$"]


def encryption() -> list[str]:
    """Have JupyterLab and its kernels talk in private, also on the loopback interface, where their versions can.

    A kernel that can and is not told to warns of it in the terminal, for each notebook that is opened.
    """
    from jupyter_client.manager import KernelManager

    known = "transport_encryption" in KernelManager.class_traits()
    return ["--KernelManager.transport_encryption=auto"] if known else []


def port_is_free(port: int) -> bool:
    """Whether this user may listen on `port` of 127.0.0.1 now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def can_make_namespaces() -> bool:
    """Tries in a throw-away child what the labs will do: a millisecond, and nothing changes here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            import ctypes

            namespaces = 0x00020000 | 0x04000000 | 0x20000000 | 0x08000000  # mount, UTS, PID, IPC
            if os.geteuid() != 0:
                namespaces |= 0x10000000  # user
            status = 0 if ctypes.CDLL(None).unshare(namespaces) == 0 else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def already_running(port: int | None) -> str:
    """The address of the JupyterLab that has this checkout open, or empty; then this process has it open from now on.

    One that is asked for at another `port` than the running one is a second one on purpose.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(STATE / "open.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # held until this one ends
    except OSError:  # another user's
        return ""
    for _ in range(SECONDS_TO_BEGIN * 10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode()
            if not own_process(pid):
                return ""
            found = address_of(pid)
            if found and port not in (None, found[0]):
                return ""
            if found:
                return found[1]
            time.sleep(0.1)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}".encode(), 0)
            return ""
    return ""  # it hangs, or listens without having said where


def own_process(pid: str) -> bool:
    """Whether that process is this user's, or not known yet. Another user's token is not ours to show."""
    try:
        return not pid or os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return True  # it has just ended


def address_of(pid: str) -> tuple[int, str] | None:
    """The port and the address, with its token, of the JupyterLab of this user with that PID, once it listens."""
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        told = json.loads(Path(jupyter_runtime_dir(), f"jpserver-{pid}.json").read_text())
        return told["port"], f"{told['url']}lab?token={told['token']}"
    except (OSError, ValueError, KeyError):
        return None


def wants_vm() -> bool:
    """Asks on a terminal; anywhere else, or without an answer in time, the answer is no."""
    who = "root" if os.getuid() == 0 else "you"
    print(CANNOT.format(who=who), flush=True)
    if not sys.stdin.isatty():
        return False
    print(f"Open it in the virtual machine now? [Y/n] ({SECONDS_TO_ANSWER} s) ", end="", flush=True)
    ready, _, _ = select.select([sys.stdin], [], [], SECONDS_TO_ANSWER)
    answer = sys.stdin.readline().strip().lower() if ready else "n"
    if not ready:
        print("no answer; going on without it.")
    return answer in ("", "y", "yes")


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    options, rest = parser().parse_args(words[:cut]), words[cut + 1 :]
    if options.port is not None and not 0 <= options.port <= 65535:
        print("lab: a port is a number up to 65535.", file=sys.stderr)
        return 2
    if options.port and not port_is_free(options.port):
        print(
            f"lab: port {options.port} of 127.0.0.1 is in use (or not yours to use). "
            "Choose another, or leave --port away: the next free one is taken.",
            file=sys.stderr,
        )
        return 1
    if options.vm or (options.vm is None and not can_make_namespaces() and wants_vm()):
        from labkit.course.commands.cli import main as command

        port = ["--port", str(options.port)] if options.port is not None else []
        return command(["vm", "--labs", *port])
    from labkit.course.commands import service, systemd_scope
    from labkit.course.setup import log, setup

    try:
        for folder in filter(Path.exists, (CHECKOUT / "labs", STATE)):
            setup.check_writable(folder)  # or nothing that is done in the notebooks could be saved
    except log.SetupError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    try:
        setup.repair_rootfs(STATE)
    except (log.SetupError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)

    if service.is_running() and options.port is None:
        service.show()
        return 0
    systemd_scope.enter()
    if address := already_running(options.port):
        print(f"The course is open already: {address}")
        return 0
    if service.IN_SERVICE in os.environ:
        os.environ["JUPYTER_TOKEN_FILE"] = str(service.token_file())
    if os.getuid() == 0 and "LABKIT_IN_VM" not in os.environ:
        print(AS_ROOT, flush=True)
    # The user's other Jupyter work keeps its own open tabs; the course has its own.
    os.environ.setdefault("JUPYTERLAB_WORKSPACES_DIR", str(STATE / "jupyter/workspaces"))
    # Cells that start `python` or `labkit` get the course's.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    from jupyterlab.labapp import main as jupyterlab

    sys.argv[0] = "jupyter-lab"
    arguments = [*jupyter_arguments(options.port, not options.no_browser), *encryption()]
    return int(jupyterlab([*arguments, *rest]) or 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
