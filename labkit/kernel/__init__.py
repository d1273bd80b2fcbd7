"""Small interfaces of the kernel: control group files, descriptors by socket, limits, signals."""
