"""The root file system of a computer that stays: busybox, and nothing of the host's.

An initramfs is an archive that the kernel unpacks into memory and takes for its root (initramfs(5) in the kernel's
Documentation/filesystems/ramfs-rootfs-initramfs.rst). Its program /init is PID 1: here a shell script that
becomes busybox's init. That keeps two lines to the host open::

    console    the kernel's messages, and a shell for whoever types
    channel    <id> <seconds> <command in base64>      ->  run it, ended by force after so many seconds
               <-  <id> <exit code>, its output in base64, a line with a full stop
"""

from pathlib import Path

from labkit.vm import cpio, kernels

HOSTNAME = "guest"
READY = "ready"  # the channel's first line
OUTPUT_BYTES = 1 << 18  # of a command's output; what is more is left out

_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
mkdir -p /dev/pts /proc /sys /tmp /root /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devpts devpts /dev/pts
hostname @HOSTNAME@
ip link set lo up
echo 4 > /proc/sys/kernel/printk # from here on only what is serious disturbs whoever types
exec init < /dev/console > /dev/console 2>&1
"""

# init(8) of busybox starts these anew when they end, and switches the computer off for `poweroff`.
_INITTAB = """\
::respawn:/serve
@CONSOLE@::respawn:-/bin/sh
"""

_PROFILE = """\
export PATH=/bin HOME=/root TERM=dumb
PS1='guest:\\w# '
cd
"""

_SERVE = """\
#!/bin/busybox sh
. /etc/profile
exec < @CHANNEL@ > @CHANNEL@
stty raw -echo
echo @READY@
while read -r id seconds text; do
  echo "$text" | base64 -d > /run/command
  timeout -s KILL "$seconds" sh /run/command < /dev/null > /run/output 2>&1
  echo "$id $?"
  head -c @OUTPUT_BYTES@ /run/output | base64
  echo .
done
"""


def write(target: Path, console: str, channel: str) -> None:
    """Write the initramfs to `target`; `console` and `channel` are the names of the two lines, such as ttyS0."""
    values = {
        "@HOSTNAME@": HOSTNAME,
        "@CONSOLE@": console,
        "@CHANNEL@": f"/dev/{channel}",
        "@READY@": READY,
        "@OUTPUT_BYTES@": str(OUTPUT_BYTES),
    }

    def filled(script: str) -> bytes:
        for name, value in values.items():
            script = script.replace(name, value)
        return script.encode()

    with target.open("wb") as file:
        archive = cpio.Writer(file)
        for folder in ("bin", "dev", "etc"):
            archive.folder(folder)
        archive.file("bin/busybox", kernels.busybox().read_bytes(), 0o755)
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("etc/group", b"root:x:0:\n")
        archive.file("etc/inittab", filled(_INITTAB))
        archive.file("etc/profile", filled(_PROFILE))
        archive.file("init", filled(_INIT), 0o755)
        archive.file("serve", filled(_SERVE), 0o755)
        archive.close()
