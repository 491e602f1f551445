#!/usr/bin/env bash
# Builds the image of ovn-kubevirt where none can be pulled: from the binary that cargo has built on this machine, and
# from Debian's packages. The last stage of deploy/Dockerfile says the rest.
#
# usage: build.sh BINARY [TAG...]    without a TAG: ovn-kubevirt:<version> and ovn-kubevirt:latest
set -euo pipefail

here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
binary=${1:?usage: build.sh BINARY [TAG...]}
tags=("${@:2}")
[ "${#tags[@]}" -gt 0 ] || tags=("ovn-kubevirt:$("$binary" version | cut -d ' ' -f 2)" ovn-kubevirt:latest)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/context"
"$here/rootfs.sh" "$binary" "$work/context/rootfs"
# What the build stage would have made is in the context.
sed -n '/^FROM scratch AS final$/,$ p' "$here/../Dockerfile" | sed 's/--from=build //' >"$work/context/Dockerfile"
docker build "${tags[@]/#/--tag=}" "$work/context" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
docker image inspect --format '{{.Size}}' "${tags[0]}" | awk -v tags="${tags[*]}" '{printf "image: %s: %.1f MB\n", tags, $1 / 1e6}'
