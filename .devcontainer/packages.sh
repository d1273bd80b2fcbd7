#!/bin/sh
# What ./lab setup wants of Debian, installed as root; after it, an ordinary user sets the rest up.
set -eu

case $(uname -m) in
    aarch64) qemu='qemu-system-arm' ;;
    *) qemu='qemu-system-x86' ;;
esac
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends \
    python3 python3-venv uidmap tini iproute2 strace libseccomp2 busybox-static "$qemu"
