#!/bin/sh
# The ordinary user's part of the reference machine: a copy of the course in ~/labkit, and the same set-up as everywhere.
# May be run again at any time: files that were worked on there are kept.
#   sh course.sh FOLDER
set -eu

die() {
    printf 'labkit: %s\n' "$1" >&2
    exit 1
}

from=${1-}
to=$HOME/labkit
[ "$(id -u)" != 0 ] || die 'this part is for the user of the course, and not for root.'
[ -r "$from/lab" ] || die "the course is not in '$from'. If Vagrant shared no folder there, see docs/operator.md."

mkdir -p "$to"
# The names of the course's files, but for what set-up makes and what git keeps.
files() {
    left_out='-path ./.git -o -path ./.venv* -o -path ./.lab -o -path ./.vagrant -o -name __pycache__ -o -name .*_cache'
    # shellcheck disable=SC2086  # words for find
    (cd "$from" && set -f && find . \( $left_out \) -prune -o \( -type f -o -type l \) "$@" -print0)
}
pack() { tar -C "$from" --mode=u+rw,go+r,go-w --null -T - -cf -; }
unpack() {
    tar -C "$to" "$@" -xf - ||
        die "the course could not be copied to $to. Is the disk full? Then vagrant destroy, and vagrant up again."
}
# What was worked on is newer, and kept. A notebook is never replaced: ./lab reset --notebooks does that, with a copy.
files ! -path './labs/*.ipynb' | pack | unpack --keep-newer-files --warning=no-ignore-newer
files -path './labs/*.ipynb' | pack | unpack --skip-old-files
chmod +x "$to/lab" # Windows keeps no such mark
if grep -q "$(printf '\r')$" "$to/lab"; then
    die 'git has given the files Windows line ends. Type: git config core.autocrlf false && git rm -rq --cached . && git reset --hard'
fi

before=$(cat "$to/.venv/labkit-stamp" 2>/dev/null) || before=''
# Through sudo: it installs system packages as root, and does all else as the user who called.
sudo -n "$to/lab" setup || die 'the set-up was not finished. Mend what it says above, then: vagrant provision'

XDG_RUNTIME_DIR=/run/user/$(id -u)
export XDG_RUNTIME_DIR
if [ -n "$before" ] && [ "$before" != "$(cat "$to/.venv/labkit-stamp")" ]; then
    systemctl --user try-restart labkit.service # it ran in an environment that is no more
fi
# As JupyterLab will run: begun by the user's own systemd, which knows the groups that the user has been given since.
systemd-run --user --quiet --collect --pipe --wait --property=Delegate=yes -- "$to/lab" doctor --strict ||
    die 'the doctor found that labs cannot run on this machine; its tables say why. Mend that, then: vagrant provision'
