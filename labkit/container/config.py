"""What a container is to be: one frozen, validated description."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labkit import capabilities, mounts, rootfs
from labkit.errors import InvalidConfig

DEFAULT_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "xterm",
}
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_REQUEST_BYTES = 64 * 1024  # of arguments and environment together: they travel in one message


@dataclass(frozen=True)
class Config:
    """A command, the root it sees, and what it keeps of root's power. Names are OCI's (config.md).

    `root` is a folder of the machine; `args` the command with its arguments; `env` replaces the default environment;
    `capabilities` are what is kept (Docker's 14 by default). `InvalidConfig` for what makes no sense.
    """

    args: Sequence[str]
    root: str | os.PathLike[str]
    hostname: str = "container"
    env: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_ENV))
    cwd: str = "/"
    readonly: bool = False
    capabilities: Sequence[str] = tuple(capabilities.DEFAULT)
    plan: tuple[mounts.Step, ...] = rootfs.DEFAULT_PLAN

    def __post_init__(self) -> None:
        if isinstance(self.args, str) or not self.args or not all(isinstance(a, str) for a in self.args):
            raise InvalidConfig('the command is a list of strings, such as ["ls", "-l"]')
        if not self.args[0]:
            raise InvalidConfig("the command's name is empty")
        texts = [*self.args, self.cwd, self.hostname, *self.env, *self.env.values(), os.fspath(self.root)]
        if any("\0" in text for text in texts):
            raise InvalidConfig("an argument, path or variable holds a NUL byte, which no system call can carry")
        if sum(len(os.fsencode(text)) for text in texts) > _REQUEST_BYTES:
            raise InvalidConfig(f"arguments and environment are larger than {_REQUEST_BYTES // 1024} KiB together")
        if any("=" in name or not name for name in self.env):
            raise InvalidConfig("a variable's name is empty or holds an equals sign")
        if not _HOSTNAME.fullmatch(self.hostname):
            raise InvalidConfig(
                f"{self.hostname[:80]!r} is no host name: 1 to 64 letters, digits, dots and hyphens, "
                "the first and last a letter or digit"
            )
        if not self.cwd.startswith("/"):
            raise InvalidConfig(f"the working directory {self.cwd!r} must be an absolute path in the container")
        capabilities.mask(tuple(self.capabilities))
        self._check_root()

    def _check_root(self) -> None:
        root = os.fspath(self.root)
        try:
            found = os.lstat(root)
            if stat.S_ISLNK(found.st_mode):
                raise InvalidConfig(f"the root filesystem {root} is a symbolic link; name the folder it points to")
            if not stat.S_ISDIR(found.st_mode):
                raise InvalidConfig(f"the root filesystem {root} is not a folder")
            if os.path.samestat(found, os.stat("/")):
                raise InvalidConfig(
                    "the root filesystem is this machine's own root; a container needs a folder of its own"
                )
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidConfig(f"the root filesystem {root} does not exist") from None
        except PermissionError:
            raise InvalidConfig(f"the root filesystem {root} may not be read by you") from None
        if empty:
            raise InvalidConfig(f"the root filesystem {root} is empty: there is no command in it to run")

    def message(self) -> tuple[object, ...]:
        """The same as plain values, for the zygote: what `start.start` takes."""
        return (
            tuple(self.args),
            os.path.abspath(self.root),
            self.hostname,
            dict(self.env),
            self.cwd,
            self.readonly,
            capabilities.mask(tuple(self.capabilities)),
            self.plan,
        )
