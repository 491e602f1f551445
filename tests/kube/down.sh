#!/usr/bin/env bash
# Ends what up.sh started in RUN_DIR, and nothing else; logs and data stay.
#
# usage: down.sh RUN_DIR
set -euo pipefail

run_dir=$(realpath -m "${1:?usage: down.sh RUN_DIR}")
declare -A program=([kcm]=kube-controller-manager [apiserver]=kube-apiserver [etcd]=etcd)

is_ours() { # PID PROGRAM: true while that pid is that program, run for this folder; a pid can have gone to another process
    local command=()
    { mapfile -d '' -t command <"/proc/$1/cmdline"; } 2>/dev/null || return 1
    [ "${#command[@]}" -gt 0 ] && [ "${command[0]##*/}" = "$2" ] && [[ " ${command[*]}" == *"=$run_dir/"* ]]
}

# All at once: what they would still tell each other is of no use to anyone, and neither is a graceful end, for which
# kube-apiserver waits a minute for open watches.
declare -A left=()
for name in kcm apiserver etcd; do
    pid=$(cat "$run_dir/$name.pid" 2>/dev/null) || continue
    if is_ours "$pid" "${program[$name]}" && kill "$pid" 2>/dev/null; then left[$name]=$pid; fi
done
for attempt in {1..50}; do
    for name in "${!left[@]}"; do
        is_ours "${left[$name]}" "${program[$name]}" || unset "left[$name]"
    done
    [ "${#left[@]}" -gt 0 ] || break
    # After two seconds there is no more waiting.
    if [ "$attempt" = 40 ]; then kill -KILL "${left[@]}" 2>/dev/null || true; fi
    sleep 0.05
done
rm -f "$run_dir"/{kcm,apiserver,etcd}.pid
[ "${#left[@]}" = 0 ] || { echo "down.sh: still there: ${left[*]}" >&2; exit 1; }
