"""`./lab service`: JupyterLab as a service of this user's systemd: it begins when the machine starts, and stays.

    ~/.config/systemd/user/labkit.service    the service: `./lab`, in a control group that systemd hands over to it
    .lab/service/token                       the token, for this user's eyes only; the same at each start
    .lab/service/port, reached-at            where it listens, and the port of the address, where another leads here

Sources: systemd.service(5), systemd.resource-control(5) ("Delegate="), loginctl(1) ("enable-linger").
"""

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from labkit import arguments
from labkit.errors import Unsupported
from labkit.files import state_folder

NAME = "labkit.service"
PORT = 8888
IN_SERVICE = "LABKIT_SERVICE"  # in the environment of the service itself
START_SECONDS = 600  # a small imitated machine takes minutes

UNIT = """\
# Made by ./lab service.
[Unit]
Description=labkit: the course in JupyterLab

[Service]
Environment={settings}
ExecStart={lab} --no-browser --no-vm --port {port}
Delegate=yes
Restart=on-failure

[Install]
WantedBy=default.target
"""


def token_file() -> Path:
    """The file with the token, made where there is none. Only this user may read it."""
    path = state_folder.state() / "service/token"
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        new = path.with_name(f"token.{os.getpid()}")
        new.touch(mode=0o600)
        new.write_text(secrets.token_hex(24))
        try:
            os.link(new, path)  # whole, and never over another's
        finally:
            new.unlink()
    return path


def _port(name: str, default: int) -> int:
    try:
        return int((state_folder.state() / "service" / name).read_text())
    except (OSError, ValueError):
        return default


def port() -> int:
    """The port of 127.0.0.1 at which it listens."""
    return _port("port", PORT)


def address() -> str:
    """Where JupyterLab is to be found, as a browser outside wants it."""
    return f"http://127.0.0.1:{_port('reached-at', port())}/?token={token_file().read_text()}"


def is_running() -> bool:
    """Whether the service runs, and is not what asks. Costs nothing where there is none."""
    if IN_SERVICE in os.environ or not _unit_file().exists():
        return False
    try:
        return _systemctl("is-active", "--quiet", NAME).returncode == 0
    except Unsupported:
        return False


def _unit_file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder, "systemd/user", NAME)


def unit(checkout: Path) -> str:
    """The text of the service."""
    settings = [f"{IN_SERVICE}=1", "LABKIT_SCOPE=1"]
    if state := os.environ.get("LABKIT_STATE"):
        settings.append(f"LABKIT_STATE={os.path.abspath(state)}")
    return UNIT.format(settings=" ".join(map(_word, settings)), lab=_word(str(checkout / "lab")), port=port())


def _word(text: str) -> str:
    """As one word in a unit file, where a % begins something unless doubled. A $ does not, in these places.

    systemd.service(5): "Command lines"; systemd.exec(5): "Environment=".
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    """This user's systemctl. `Unsupported`: there is none, or no manager of this user runs."""
    runtime = f"/run/user/{os.getuid()}"
    if os.path.isdir(runtime):
        os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
    try:
        done = subprocess.run(["systemctl", "--user", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise Unsupported("there is no systemd here, of which this is a service", "use ./lab") from None
    if "Failed to connect to bus" in done.stderr:
        raise Unsupported(
            "your own systemd does not run",
            f"log in anew (su and sudo do not start it), or as root: loginctl enable-linger {_user()}",
        )
    return done


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def start() -> None:
    """Have it run now and whenever the machine starts; return when it answers. `Unsupported` says why it cannot."""
    token_file()
    path, text = _unit_file(), unit(state_folder.checkout())
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        _systemctl("daemon-reload")
        _systemctl("stop", NAME)  # of an older unit, or of another checkout
    _systemctl("reset-failed", NAME)
    done = _systemctl("enable", "--now", NAME)
    if done.returncode:
        raise Unsupported(
            f"systemd could not start it ({done.stderr.strip()})", f"see why: systemctl --user status {NAME}"
        )
    _wait_until_it_answers()


def _wait_until_it_answers() -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port()}/api/status", headers={"Authorization": f"token {token_file().read_text()}"}
    )
    end = time.monotonic() + START_SECONDS
    see = f"see why: journalctl --user --unit {NAME} (or: systemctl --user status {NAME})"
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except urllib.error.HTTPError as refusal:
            what = f"another JupyterLab answers at port {port()} (it says {refusal.code}), and this one cannot"
            raise Unsupported(what, "end that one, or choose another port: ./lab service --port 8801") from None
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        if _systemctl("is-failed", "--quiet", NAME).returncode == 0:
            raise Unsupported("JupyterLab ended right after its start", see)
        if time.monotonic() > end:
            raise Unsupported(f"JupyterLab has not answered for {START_SECONDS} s", see)
        time.sleep(1)  # it tells nobody when it is ready, and asking more often would take from a slow machine


def stop() -> None:
    """End it, with all notebooks' processes, and have it start no more."""
    _systemctl("disable", "--now", NAME)
    _unit_file().unlink(missing_ok=True)
    _systemctl("daemon-reload")


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.Parser(
        "./lab service",
        "Run the course as a service of yours, from the start of the machine on, and show its address.",
    )
    parser.add_argument("--stop", action="store_true", help="end it, and have it start no more")
    parser.add_argument("--port", type=int, help=f"listen on this port of 127.0.0.1, from now on (default: {PORT})")
    parser.add_argument(
        "--reached-at", type=int, metavar="PORT", help="show this port in the address: one that is forwarded to here"
    )
    options = parser.parse_args(argv)
    if os.geteuid() == 0:
        print("lab: JupyterLab as a service is for an ordinary user; root starts ./lab.", file=sys.stderr)
        return 1
    if options.stop:
        stop()
        print("JupyterLab has ended, and will not start by itself.")
        return 0
    chosen = {"port": options.port, "reached-at": options.reached_at}
    for number in chosen.values():
        if number is not None and not 0 < number <= 65535:
            print("lab: a port is a number from 1 to 65535.", file=sys.stderr)
            return 2
    for name, number in chosen.items():
        if number is not None:
            token_file().with_name(name).write_text(f"{number}\n")
    start()
    show()
    return 0


def show() -> None:
    """Print the address, and what would end the service early."""
    print(f"The course is open. In a browser: {address()}", flush=True)
    if not Path("/var/lib/systemd/linger", _user()).exists():
        print(f"It ends when you log out. So that it stays: sudo loginctl enable-linger {_user()}", flush=True)
