"""Builds root filesystems from this machine's own distribution: a server, and all that its packages depend on.

    python3 build_debian.py FOLDER NAME...

A recipe is the folder `rootfs/NAME`: `packages` names the packages, `root/` holds files that are laid over them. The
tree becomes FOLDER/NAME. apt resolves and downloads, from where the machine is configured to, into a folder of its own:
nothing is installed, the machine's own package database is not touched, and no root is needed. The packages are
unpacked and none of their scripts run, which is all that a program needs which is given its configuration anyway.

A tree is built beside the old one and renamed, so an interrupted build leaves the old one whole. One whose recipe, and
the release of the machine, are still the same is left alone.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPES = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(RECIPES.parent))
try:
    from labkit.files import manifest as tree
except ImportError:  # the recipes alone, in a machine that is being made: the list of files is made at its first set-up
    tree = None  # type: ignore[assignment]

STAMP = "etc/labkit-recipe"  # in the tree: by what it was built

# Since usr-merge the packages expect these, and bring only what lies behind them.
LINKS = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "run": 0o755,
    "tmp": 0o1777,
    "root": 0o700,
    "srv": 0o755,
}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nserver:x:26:26::/srv:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nserver:x:26:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/resolv.conf": "",
}
# What no server reads: texts for people, and PostgreSQL's just-in-time compiler, which alone is a third of all bytes.
LEFT_OUT = tuple(f"./usr/share/{name}/*" for name in ("doc", "man", "locale", "info", "lintian")) + (
    "*/llvmjit*",
    "*/bitcode/*",
)
# What packages depend on for their installation only, whose scripts are not run here.
PACKAGES_LEFT_OUT = re.compile(
    r"(adduser|debconf|dpkg|init-system-helpers|iproute2|libbpf|libc-l10n|libelf|libfile-find|libjson-perl|libllvm|"
    r"libnumber-compare|libperl|libpython3-testsuite|libtext-glob|libz3-|locales|lsb-base|passwd|perl|postgresql-common|"
    r"procps|readline-common|sensible-utils|ssl-cert|sysvinit-utils|tar|ucf|usrmerge)"
)


class BuildError(Exception):
    """It cannot be done; the text says why and what to do."""


def recipe(name: str) -> str:
    """What the tree `name` is built by, as a hash: the recipe, this program, and the machine's release."""
    files = [Path(__file__), *(path for path in sorted((RECIPES / name).rglob("*")) if path.is_file())]
    digest = hashlib.sha256()
    for path in files:
        if path.suffix not in (".md", ".pyc"):
            digest.update(path.read_bytes())
    release = Path("/etc/os-release")
    if release.exists():  # what changes with the distribution, and not with each of its updates
        digest.update("".join(re.findall(r"^(?:ID|VERSION_ID)=.*\n", release.read_text(), re.MULTILINE)).encode())
    return digest.hexdigest() + "\n"


def is_built(folder: Path, name: str) -> bool:
    """Whether FOLDER/NAME is there, by the recipe as it is now."""
    try:
        return (folder / name / STAMP).read_text() == recipe(name)
    except OSError:
        return False


class PackagesUnknown(BuildError):
    """apt knows no such packages, or cannot fetch them: its lists may be missing or old."""


class Apt:
    """apt with a state and a cache of its own, and the machine's sources and keys."""

    def __init__(self, scratch: Path) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise BuildError(f"{tool} is missing: these trees are built from Debian's or Ubuntu's packages")
        self.archives = scratch / "archives"
        (self.archives / "partial").mkdir(parents=True)
        (scratch / "lists/partial").mkdir(parents=True)
        (scratch / "status").touch()  # nothing counts as installed, so that everything needed is fetched
        self.lists = scratch / "lists"
        self.options = [
            f"Dir::State={scratch}",
            f"Dir::State::status={scratch}/status",
            f"Dir::Cache={scratch}",
            f"Dir::Cache::archives={self.archives}",
            "APT::Sandbox::User=",
            "APT::Install-Recommends=false",
            "APT::Get::AllowUnauthenticated=false",
            "Debug::NoLocking=true",
            "Acquire::Retries=2",
        ]
        self.use("Dir::State::lists=/var/lib/apt/lists")  # the machine's, if they do

    def use(self, option: str) -> None:
        """Set a further option."""
        self.options.append(option)

    def run(self, *arguments: str) -> str:
        """Run apt-get; return what it printed. `BuildError` with its own words where it failed."""
        command = ["apt-get", "-qq", *(word for option in self.options for word in ("-o", option)), *arguments]
        environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        # `download` puts files where it runs.
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.archives)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            said = (errors or done.stderr.splitlines()[-1:] or ["it said nothing"])[0].removeprefix("E: ")
            raise PackagesUnknown(f"apt-get could not fetch the packages ({said}); is there a network?")
        return done.stdout

    def update(self) -> None:
        """Fetch package lists into our own folder, where the machine has none, or they are out of date."""
        self.use(f"Dir::State::lists={self.lists}")
        self.run("-o", "APT::Update::Error-Mode=any", "update")

    def resolve(self, packages: list[str]) -> dict[str, tuple[str, int]]:
        """What `packages` and their dependencies are: name of the package file, to (apt's word for it, bytes)."""
        found = {}
        for line in self.run("--print-uris", "-y", "install", *packages).splitlines():
            _, file, size, *_ = line.split()
            name, version, _ = file.split("_")
            if not PACKAGES_LEFT_OUT.match(name):
                found[file] = (f"{name}={version.replace('%3a', ':')}", int(size))
        return found

    def download(self, wanted: dict[str, tuple[str, int]]) -> None:
        """Fetch the package files that are not here yet. apt checks their hashes against the signed lists."""
        words = [word for file, (word, _) in wanted.items() if not (self.archives / file).exists()]
        if words:
            self.run("download", *words)


def unpack(package: Path, root: Path) -> None:
    """Lay the files of one package into `root`, as files of whoever calls, but for what is left out."""
    tar = ["tar", "-x", "-C", str(root), "--keep-directory-symlink", "--no-same-owner", "--no-same-permissions"]
    tar += [f"--exclude={pattern}" for pattern in LEFT_OUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as source:
        done = subprocess.run(tar, stdin=source.stdout, stderr=subprocess.PIPE, text=True)
    if done.returncode or source.returncode:
        said = done.stderr.strip().splitlines()[:1] or [f"dpkg-deb ended with {source.returncode}"]
        raise BuildError(f"{package.name} could not be unpacked: {said[0]}")


def fill(root: Path, packages: list[Path], overlaid: Path) -> None:
    """Make the tree in the new folder `root`."""
    (root / "usr").mkdir()
    for name, target in LINKS.items():
        (root / target).mkdir()
        (root / name).symlink_to(target)
    for name, mode in FOLDERS.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    for package in packages:
        unpack(package, root)
    for name, text in FILES.items():
        (root / name).write_text(text)
    for program in root.glob("usr/lib/postgresql/*/bin/*"):  # each version has a folder of its own; here is only one
        link = root / "usr/bin" / program.name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(program, link.parent))
    if overlaid.is_dir():
        shutil.copytree(overlaid, root, dirs_exist_ok=True)
    root.chmod(0o755)


def fetch(apt: Apt, recipes: dict[str, list[str]], folder: Path) -> dict[str, list[Path]]:
    """Download what the `recipes` need; return the package files of each. `BuildError`: no network, no room."""
    wanted = {name: apt.resolve(packages) for name, packages in recipes.items()}
    everything = {file: value for files in wanted.values() for file, value in files.items()}
    size_bytes = sum(size for _, size in everything.values())
    unpacked_bytes = sum(size for files in wanted.values() for _, size in files.values()) * 4  # of what is compressed
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes + unpacked_bytes:
        needed = (size_bytes + unpacked_bytes) // 1_000_000
        raise BuildError(f"{folder} has {free_bytes // 1_000_000} MB free, and this needs {needed} MB; free some")
    print(f"downloading {len(everything)} packages, {size_bytes // 1_000_000} MB", flush=True)
    apt.download(everything)
    return {name: [apt.archives / file for file in sorted(files)] for name, files in wanted.items()}


def build(folder: Path, names: list[str]) -> None:
    """Build the trees `names` in `folder`, one after the other, saying what is going on. `BuildError`."""
    for left in folder.glob(".debian.*"):  # of a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    recipes = {name: (RECIPES / name / "packages").read_text().split() for name in names}
    with tempfile.TemporaryDirectory(prefix=".debian.", dir=folder) as made:
        scratch = Path(made)
        apt = Apt(scratch)
        try:
            packages = fetch(apt, recipes, folder)
        except PackagesUnknown:
            print("fetching the lists of packages", flush=True)
            apt.update()
            packages = fetch(apt, recipes, folder)
        for name, files in packages.items():
            print(f"unpacking {name}: {len(files)} packages", flush=True)
            new = scratch / "new"
            new.mkdir()
            fill(new, files, RECIPES / name / "root")
            (new / STAMP).write_text(recipe(name))
            if (folder / name).exists():
                (folder / name).rename(scratch / f"old-{name}")
            new.rename(folder / name)
            if tree:
                tree.save(folder / name)


def main(folder: Path, names: list[str]) -> None:
    """Build those of the trees that are not there by their recipe as it is now, or in which something was changed."""
    for name in names:
        if not (RECIPES / name / "packages").is_file():
            raise BuildError(f"there is no recipe rootfs/{name}/packages")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".debian-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another build is going on; waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    for name in names if tree else ():
        if not is_built(folder, name):
            continue
        if not tree.is_kept(folder / name):  # built before there were such lists, or where none could be made
            tree.save(folder / name)
        elif changes := tree.changes(folder / name):
            print(f"{name}: {changes[0]}; building it anew", flush=True)
            (folder / name / STAMP).unlink(missing_ok=True)
    if missing := [name for name in names if not is_built(folder, name)]:
        build(folder, missing)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        sys.exit("usage: python3 build_debian.py FOLDER NAME...")
    os.umask(0o022)
    try:
        main(Path(sys.argv[1]).absolute(), sys.argv[2:])
    except (BuildError, OSError) as error:
        sys.exit(f"not built: {error}")
    except KeyboardInterrupt:
        sys.exit("not built: interrupted")
