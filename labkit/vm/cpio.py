"""Writing a cpio archive in the form the kernel unpacks an initramfs from.

Documentation/driver-api/early-userspace/buffer-format.rst: each member is a header of "070701" and thirteen numbers of
eight hexadecimal digits, its name, and its bytes, each padded to four. A member named TRAILER!!! ends the archive.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_DIRECTORY, _REGULAR = 0o040000, 0o100000


class Writer:
    """Writes members to `file`, all owned by root."""

    def __init__(self, file: "BinaryIO") -> None:
        self._file = file
        self._inode = 0

    def folder(self, name: str) -> None:
        self._member(name, _DIRECTORY | 0o755, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._member(name, _REGULAR | mode, content)

    def close(self) -> None:
        """End the archive; the file itself stays open."""
        self._member("TRAILER!!!", 0, b"")

    def _member(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (4 numbers), length of the name, checksum (unused)
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._padded(header + path)
        self._padded(content)

    def _padded(self, data: bytes) -> None:
        self._file.write(data + b"\0" * (-len(data) % 4))
