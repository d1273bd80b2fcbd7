"""Overlay file systems: read-only layers below, a writable one on top; overlayfs.rst."""

from labkit.overlay.overlay import LAYERS_MAX, Overlay, escaped, mount, write

__all__ = ["LAYERS_MAX", "Overlay", "escaped", "mount", "write"]
