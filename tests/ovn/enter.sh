#!/usr/bin/env bash
# Runs a command in another root, in a namespace of its own for mounts and one for processes: whatever it has mounted
# or started there is gone when it ends.
#
# usage: enter.sh ROOT FOLDER... -- COMMAND [ARGUMENT...]
#
# As root, in the caller's working folder. Each FOLDER is there at its own path, as are /dev, /sys and /tmp. What says how
# names and packages of PyPI are found is this machine's, to be read alone.
set -euo pipefail

if [ "$1" != --inside ]; then
    exec unshare --mount --pid --fork --kill-child -- "$0" --inside "$@"
fi
root=$2
shift 2

place() { # FILE-OR-FOLDER: at its own path in the root
    local there=$root$1
    if [ -d "$1" ]; then
        mkdir -p "$there"
    else
        mkdir -p "${there%/*}"
        [ -e "$there" ] || : >"$there"
    fi
    mount --rbind "$1" "$there"
}
for shared in /dev /sys /tmp; do place "$shared"; done
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    [ -e "$file" ] || continue
    place "$file"
    mount -o remount,bind,ro "$root$file"
done
while [ "$1" != -- ]; do
    place "$1"
    shift
done
shift

# The first process of a namespace gets no signal that it has no handler for.
trap 'exit 130' INT
trap 'exit 143' TERM
chroot "$root" env -C "$PWD" "$@"
