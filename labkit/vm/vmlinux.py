"""The kernel inside a bzImage, for a machine in software: there it would take long to decompress itself.

Documentation/arch/x86/boot.rst gives the places of the setup header's fields. QEMU starts the ELF file in it directly
if that has an entry point for PVH, which a note in it tells (Documentation/virt/.../xen: XEN_ELFNOTE_PHYS32_ENTRY).
"""

import contextlib
import lzma
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

from labkit.files import state_folder

_PVH_NOTES = tuple(struct.pack("<3I4s", 4, size, 18, b"Xen") for size in (4, 8))


def uncompressed(image: Path) -> Path:
    """A file to boot in place of `image`, made once and kept among the course's files; else `image`."""
    kept = state_folder.state() / "vm" / image.name.replace("vmlinuz", "vmlinux")
    made_from = image.stat().st_mtime_ns
    with contextlib.suppress(OSError):
        if kept.stat().st_mtime_ns == made_from:
            return kept
    try:
        program = extract(image.read_bytes())
        if not program:
            return image
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="unpack-") as scratch:
            file = Path(scratch, kept.name)
            file.write_bytes(program)
            os.utime(file, ns=(made_from, made_from))
            file.rename(kept)
        return kept
    except OSError:
        return image


def extract(image: bytes) -> bytes | None:
    """The ELF file in a bzImage that has one with an entry point for PVH, compressed in a way known here; or None."""
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        return None
    offset, length = struct.unpack_from("<2I", image, 0x248)  # payload_offset, payload_length
    start = (image[0x1F1] + 1) * 512 + offset  # setup_sects
    program = _decompress(image[start : start + length])
    return program if program.startswith(b"\x7fELF") and any(note in program for note in _PVH_NOTES) else None


def _decompress(payload: bytes) -> bytes:
    """What is in `payload`, which ends with a number that is no part of it; empty if that cannot be told."""
    if payload.startswith(b"\x28\xb5\x2f\xfd") and shutil.which("zstd"):
        done = subprocess.run(["zstd", "-dcq"], input=payload[:-4], capture_output=True)
        return b"" if done.returncode else done.stdout
    whole = lzma.LZMADecompressor() if payload.startswith(b"\xfd7zXZ\0") else zlib.decompressobj(wbits=31)
    try:
        program = whole.decompress(payload)
    except (lzma.LZMAError, zlib.error):
        return b""
    return program if whole.eof else b""
