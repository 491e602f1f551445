#!/usr/bin/env bash
# Builds the images that deploy/offline.env names, where none can be pulled; all but the one of ovn-kubevirt itself.
#
# usage: compose-images.sh           needs Docker, and root or sudo for debootstrap
#
#   DEBIAN_MIRROR      the Debian mirror to use (default: the one in this machine's apt sources)
#
#   ovn-kubevirt/debian:local        a minimal Debian 12, by debootstrap; once, until it is removed
#   ovn-kubevirt/lab:local           on it, what deploy/image/lab/Dockerfile says
#   ovn-kubevirt/kubernetes:local    on it, etcd, and the programs that tests/kube/build.sh builds
set -euo pipefail

here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
debian=ovn-kubevirt/debian:local
work=$(mktemp -d)
trap 'rm -rf "$work" 2>/dev/null || as_root rm -rf --one-file-system "$work"' EXIT

say() { printf 'compose-images: [%3d s] %s\n' "$SECONDS" "$*" >&2; }
fail() { say "$*"; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
quietly() { "$@" >"$work/$BASHPID.log" 2>&1 </dev/null || { tail -n 40 "$work/$BASHPID.log" >&2; fail "failed: $*"; }; }

mirror() { # the machine's own Debian mirror, security and third-party archives left out
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    {
        sed -nE 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p' /etc/apt/sources.list.d/*.sources || true
        sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]*)?([^[:space:]]+).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list || true
    } 2>/dev/null | grep -v -e '^cdrom:' -e '^mirror' | grep -m 1 -E '/debian/?$'
}

debian_image() {
    local mirror apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    mirror=$(mirror) || fail "found no Debian mirror in this machine's apt sources: set DEBIAN_MIRROR"
    if ! command -v debootstrap >/dev/null && [ ! -x /usr/sbin/debootstrap ]; then
        say 'installing debootstrap'
        quietly as_root "${apt[@]}" update
        quietly as_root "${apt[@]}" install -y --no-install-recommends debootstrap
    fi
    say "$debian: debootstrap (about a minute, once)"
    quietly as_root env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" "$mirror"
    as_root tar -C "$work/debian" --one-file-system --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./proc/*' --exclude='./sys/*' -c . |
        docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
    as_root rm -rf --one-file-system "$work/debian"
}

build() { # IMAGE FOLDER
    local begun=$SECONDS
    quietly docker build --build-arg "DEBIAN_IMAGE=$debian" --tag "$1" "$2"
    say "$1: $((SECONDS - begun)) s"
}

docker image inspect "$debian" >/dev/null 2>&1 || debian_image

# Both at once: most of the time goes into packages.
build ovn-kubevirt/lab:local "$here/lab" &
lab=$!
unset KUBEBUILDER_ASSETS # setup-envtest's folder has no controller manager
programs=$("$here/../../tests/kube/build.sh")
mkdir "$work/kubernetes"
cp "$here/kubernetes/Dockerfile" "$programs/kube-apiserver" "$programs/kube-controller-manager" "$work/kubernetes/"
build ovn-kubevirt/kubernetes:local "$work/kubernetes"
wait "$lab"
say 'done'
