#!/bin/sh
# Root's part of the reference machine: what USER needs so that every lab runs. May be run again at any time.
#   sudo sh system.sh USER
set -eu

die() {
    printf 'labkit: %s\n' "$1" >&2
    exit 1
}

user=${1-}
[ "$(id -u)" = 0 ] || die "this part is root's: sudo sh $0 USER"
uid=$(id -u "$user" 2>/dev/null) || die "there is no user '$user' here. Usage: sudo sh $0 USER"
[ "$uid" != 0 ] || die "USER is who will use the course, and not root. Usage: sudo sh $0 USER"
command -v apt-get >/dev/null || die 'this machine has no apt-get; the course is made for Debian 12, Ubuntu 24.04 and newer.'
[ -d /run/systemd/system ] || die 'systemd is not at work here, and hands out the control groups.'
[ -e /sys/fs/cgroup/cgroup.controllers ] ||
    die 'control groups are of version 1 here. Boot with systemd.unified_cgroup_hierarchy=1, then run this again.'

# --- a disk that was given more room than the file system on it takes ------------------------------------------------

root=$(findmnt -n -o SOURCE /)
if [ "$(findmnt -n -o FSTYPE /)" = ext4 ] && [ -b "$root" ]; then
    name=$(basename "$(readlink -f "$root")")
    if [ -e "/sys/class/block/$name/partition" ] && command -v growpart >/dev/null; then
        disk=$(basename "$(dirname "$(readlink -f "/sys/class/block/$name")")")
        growpart "/dev/$disk" "$(cat "/sys/class/block/$name/partition")" >/dev/null || : # it fills the disk already
    fi
    resize2fs "$root" >/dev/null 2>&1 || :
fi

# --- packages; ./lab setup adds those that the labs themselves name --------------------------------------------------

missing=''
for package in python3 python3-venv uidmap iproute2 dbus-user-session lxc; do
    dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "Installing$missing"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # one word for each package
    { apt-get update && apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 $missing; } >"$log" 2>&1 </dev/null || {
        tail -n 12 "$log" >&2
        die "apt-get could not install$missing. Check the network, then run this again (vagrant provision)."
    }
    rm -f "$log"
fi

# --- what the kernel lets an ordinary user do ------------------------------------------------------------------------

# Ubuntu's AppArmor takes the capabilities in user namespaces away; old Debians forbade such namespaces.
sysctls=/etc/sysctl.d/60-labkit.conf
rm -f "$sysctls"
for setting in kernel/apparmor_restrict_unprivileged_userns=0 kernel/unprivileged_userns_clone=1; do
    file=/proc/sys/${setting%=*}
    [ -e "$file" ] || continue
    printf '%s = %s\n' "${setting%=*}" "${setting#*=}" >>"$sysctls"
    printf '%s' "${setting#*=}" >"$file"
done

# Ids for the users inside of containers. subuid(5); useradd gives every new user some, where uidmap was there before.
for kind in uid gid; do
    grep -q "^\($user\|$uid\):" "/etc/sub$kind" 2>/dev/null && continue
    first=$(cat /etc/subuid /etc/subgid 2>/dev/null | awk -F: '{ if ($2 + $3 > m) m = $2 + $3 } END { print (m > 100000 ? m : 100000) }')
    usermod "--add-sub${kind}s" "$first-$((first + 65535))" "$user"
done

changed=no
if getent group kvm >/dev/null && ! id -nG "$user" | grep -qw kvm; then
    usermod -aG kvm "$user"
    changed=yes
fi

# --- control groups: systemd hands them to the user's own manager, and that to JupyterLab ----------------------------

drop_in=/etc/systemd/system/user@.service.d/labkit.conf
wanted='[Service]
Delegate=cpu cpuset io memory pids'
if [ "$(cat "$drop_in" 2>/dev/null)" != "$wanted" ]; then
    mkdir -p "${drop_in%/*}"
    printf '%s\n' "$wanted" >"$drop_in"
    systemctl daemon-reload
    changed=yes
fi
# The manager of a user who is not logged in, too, and from boot on.
loginctl enable-linger "$user"
# It has the groups and the controllers from when it began. Log-ins go on; what it runs itself begins anew.
[ "$changed" = no ] || systemctl restart "user@$uid.service"
