#!/usr/bin/env bash
# Compose, whichever version is here, on this checkout's docker-compose.yml.
#
# usage: compose.sh ARGUMENT...      as for docker-compose
#
#   OVN_KUBEVIRT_ENV_FILE            which images (default: deploy/offline.env, those that `make compose-images` builds)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
exec "${compose[@]}" --env-file "${OVN_KUBEVIRT_ENV_FILE:-deploy/offline.env}" "$@"
