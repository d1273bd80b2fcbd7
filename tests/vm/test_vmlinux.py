"""The kernel inside a bzImage, on images made here: a setup header, and a payload."""

import gzip
import lzma
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.vm import vmlinux

PVH = struct.pack("<3I4sQ", 4, 8, 18, b"Xen", 0x1000000)
PROGRAM = b"\x7fELF" + bytes(100) + PVH + bytes(1000)


def bzimage(payload: bytes) -> bytes:
    """One sector of setup after the boot sector, four bytes of code, the payload, and what comes after that."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<2I", setup, 0x248, 4, len(payload) + 4)
    return bytes(setup) + b"code" + payload + struct.pack("<I", len(PROGRAM)) + b"more"


def xz(data: bytes) -> bytes:
    return lzma.compress(data, check=lzma.CHECK_CRC32)


@pytest.mark.parametrize("compress", [xz, gzip.compress])
def test_the_kernel_is_found(compress: Callable[[bytes], bytes]) -> None:
    assert vmlinux.extract(bzimage(compress(PROGRAM))) == PROGRAM


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ" + bytes(5000),
        bzimage(b"lz4 or so"),
        bzimage(xz(b"\x7fELF" + bytes(1000))),  # no entry point for PVH
        bzimage(xz(b"no ELF" + PVH)),
        bzimage(xz(PROGRAM)[:50]),
        bzimage(b"\xfd7zXZ\0 and nonsense"),
    ],
)
def test_what_cannot_be_booted_directly_is_left_alone(image: bytes) -> None:
    assert vmlinux.extract(image) is None


def test_it_is_made_once_and_again_for_another_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    image = tmp_path / "vmlinuz-6"
    image.write_bytes(bzimage(xz(PROGRAM)))
    kept = vmlinux.uncompressed(image)
    assert (kept.name, kept.read_bytes()) == ("vmlinux-6", PROGRAM)
    kept.write_bytes(b"as it was kept")
    os.utime(kept, ns=(image.stat().st_mtime_ns,) * 2)
    assert vmlinux.uncompressed(image).read_bytes() == b"as it was kept"
    os.utime(image, (1, 1))
    assert vmlinux.uncompressed(image).read_bytes() == PROGRAM
    assert [path.name for path in kept.parent.iterdir()] == ["vmlinux-6"]


def test_the_image_itself_is_booted_where_none_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "file"))
    image = tmp_path / "vmlinuz-6"
    image.write_bytes(bzimage(xz(PROGRAM)))
    assert vmlinux.uncompressed(image) == image
