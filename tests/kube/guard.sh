#!/usr/bin/env bash
# Runs a Kubernetes API for as long as its standard input stays open.
#
# usage: guard.sh RUN_DIR    stdout: `ready`, once; stderr: progress, and the ends of the logs when the start fails
#
# Start it with a pipe as standard input: the kernel closes the pipe when the process at its other end is gone, even by
# SIGKILL, so that no test run leaves anything behind. It also ends on TERM, INT and HUP. At its end it removes RUN_DIR,
# which must have been empty or absent (a guard.log is fine), unless KEEP_LOGS=1.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
run_dir=$(realpath -m "${1:?usage: guard.sh RUN_DIR}")
if [ -n "$(find "$run_dir" -mindepth 1 ! -name guard.log -print -quit 2>/dev/null)" ]; then
    echo "guard.sh: $run_dir is not empty" >&2
    exit 2
fi

up=
finish() {
    local status=$?
    trap '' INT TERM HUP # for down.sh too: a second ^C must not cut it short
    trap - EXIT
    # Ours, since not waited for yet; it notes every pid before it obeys.
    if [ -n "$up" ]; then kill "$up" 2>/dev/null || true; wait "$up" || true; fi
    "$here/down.sh" "$run_dir" || status=1
    if [ "${KEEP_LOGS:-}" = 1 ]; then echo "kept: $run_dir" >&2; else rm -rf "$run_dir"; fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap : PIPE

"$here/up.sh" "$run_dir" </dev/null >&2 &
up=$!
status=0
wait "$up" || status=$?
up=
if [ "$status" != 0 ]; then
    tail -n 25 "$run_dir"/{etcd,apiserver,kcm}.log >&2 2>/dev/null || true
    exit 1
fi

# The reader may have gone: then the next line sees the end of the input.
echo ready 2>/dev/null || true
while read -r _; do :; done
