#!/usr/bin/env bash
# Builds the image of ovn-kubevirt where none can be pulled: from the binary that cargo has built on this machine, and
# from Debian's packages. The last stage of deploy/Dockerfile says the rest.
#
# usage: build.sh BINARY [IMAGE]     IMAGE: ovn-kubevirt:<version> and ovn-kubevirt/ovn-kubevirt:local where not given
set -euo pipefail

here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
binary=${1:?usage: build.sh BINARY [IMAGE]}
images=("${@:2}")
[ "${#images[@]}" -gt 0 ] || images=("ovn-kubevirt:$("$binary" version | cut -d ' ' -f 2)" ovn-kubevirt/ovn-kubevirt:local)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

"$here/rootfs.sh" "$binary" "$context/rootfs"
# What the build stage would have made is beside it.
sed -n '/^FROM scratch AS final$/,$ s/--from=build //p; /^FROM scratch AS final$/,$ { /--from=build/!p }' "$here/../Dockerfile" >"$context/Dockerfile"
docker build --quiet "${images[@]/#/--tag=}" "$context" 2> >(grep -v -i -e buildx -e 'legacy builder' -e '^ *https://docs' -e '^$' >&2) >/dev/null
echo "image: $(docker image inspect --format '{{.Size}}' "${images[0]}" | awk '{printf "%.1f MB", $1 / 1e6}'): ${images[*]}"
