# What scripts share that make something once, in minutes, and keep it in the cache folder: sourced by tests/kube/build.sh
# and tests/ovn/run.sh.
#
#   OVN_KUBEVIRT_CACHE       the cache folder (default: $XDG_CACHE_HOME/ovn-kubevirt, ~/.cache/ovn-kubevirt)
#   DEBIAN_MIRROR            the Debian mirror to use (default: the one in this machine's apt sources)
#
# `keep NAME` names the result, $cache/NAME, with its work folder and its log beside it. `take_turns` waits for another one
# who makes it. `begin` empties the work folder, and from then on `step TITLE FUNCTION` does the work; whatever ends the
# script, the work folder goes. The last act of the script is to move the work to its result.

cache=${OVN_KUBEVIRT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ovn-kubevirt}

say() { printf '[%4d s] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

keep() { # NAME
    name=$1 result=$cache/$1 work=$cache/$1.work log=$cache/$1.log
}

take_turns() { # one at a time
    command -v flock >/dev/null || fail "flock is missing: install Debian's package util-linux"
    mkdir -p "$cache"
    cache=$(realpath "$cache")
    keep "$name"
    exec 9>"$cache/$name.lock"
    if ! flock -n 9; then
        say "another run is making $result: waiting for it (its log: $log)"
        flock 9
    fi
}

child=
step() { # TITLE FUNCTION: runs it with its output in the log, and says now and then that it still runs
    local title=$1 begun=$SECONDS told=$SECONDS
    say "$title ..."
    set -m # a process group of its own, which finish can end as a whole
    "$2" >>"$log" 2>&1 &
    child=$!
    set +m
    while [ -n "$(jobs -r)" ]; do
        sleep 0.2
        [ $((SECONDS - told)) -lt 20 ] || { told=$SECONDS; say "$title: still at it"; }
    done
    wait "$child"
    child=
    say "$title: done in $((SECONDS - begun)) s"
}

begin() { # with the turn taken: a work folder that is there belongs to a run that was killed
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    rm -rf "$work" "$result"
    mkdir -p "$work"
    : >"$log"
}

finish() {
    local status=$?
    # Only while it runs, when the number cannot be another's.
    if [ -n "$(jobs -r)" ]; then kill -KILL -- "-$child" && wait "$child"; fi 2>/dev/null || true
    rm -rf "$work"
    if [ "$status" != 0 ]; then
        tail -n 20 "$log" >&2
        say "failed; the whole log: $log"
    fi
    exit "$status"
}

mirror() { # the machine's own Debian mirror, security and third-party archives left out
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    {
        sed -nE 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p' /etc/apt/sources.list.d/*.sources || true
        sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]*)?([^[:space:]]+).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list || true
    } 2>/dev/null | grep -v '^cdrom:' | grep -m 1 -E '/debian(\.list)?/?$' # .list: a mirror+file list, as in Debian's cloud images
}
