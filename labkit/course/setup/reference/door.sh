#!/bin/sh
# A door to JupyterLab for the computer that a virtual machine runs on. May be run again at any time.
#   sudo sh door.sh
#
# JupyterLab listens on 127.0.0.1, where a port that is forwarded into the machine does not arrive: it arrives at the
# machine's network card. So systemd listens there, on port 18888, and passes on to 127.0.0.1:8888. It takes calls from
# the network of that card only, which is the hypervisor's own (NAT): not from a further card, should one be added.
# systemd.resource-control(5): IPAddressAllow; systemd-socket-proxyd(8).
set -eu

die() {
    printf 'labkit: %s\n' "$1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "this part is root's: sudo sh $0"
proxy=/lib/systemd/systemd-socket-proxyd
[ -x "$proxy" ] || die "$proxy is missing: apt-get install systemd"

card=$(ip -4 route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
[ -n "$card" ] || die 'this machine has no route to a network; is its card up?'
networks=$(ip -4 route show dev "$card" scope link | cut -d' ' -f1 | sort -u | tr '\n' ' ')

units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
cat >"$units/labkit-door.socket" <<END
[Unit]
Description=labkit: the way to JupyterLab from the computer that this machine runs on

[Socket]
ListenStream=0.0.0.0:18888
IPAddressDeny=any
IPAddressAllow=localhost $networks

[Install]
WantedBy=sockets.target
END
cat >"$units/labkit-door.service" <<END
[Unit]
Description=labkit: passes calls on to JupyterLab
Requires=labkit-door.socket
After=labkit-door.socket

[Service]
ExecStart=$proxy 127.0.0.1:8888
DynamicUser=yes
END

for unit in labkit-door.socket labkit-door.service; do
    cmp -s "$units/$unit" "/etc/systemd/system/$unit" && continue
    install -m 644 "$units/$unit" /etc/systemd/system/
    changed=yes
done
if [ "${changed-no}" = yes ]; then
    systemctl daemon-reload
    systemctl stop labkit-door.socket labkit-door.service
fi
systemctl enable --quiet --now labkit-door.socket
