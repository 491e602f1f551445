#!/usr/bin/env bash
# Runs docker-compose.yml for as long as its standard input stays open.
#
# usage: guard.sh                    stdout: `ready`, once; stderr: what Compose says
#
# As tests/kube/guard.sh: started with a pipe as standard input, it cleans up however the process at the other end of the
# pipe ends. COMPOSE_PROJECT_NAME must be this run's own: all containers, networks and volumes of that project are removed.
set -euo pipefail

compose=$(dirname "${BASH_SOURCE[0]}")/compose.sh
: "${COMPOSE_PROJECT_NAME:?is the project to run, and to remove}"

finish() {
    local status=$?
    trap '' INT TERM HUP
    trap - EXIT
    # Guests end with their chassis, and are removed as they end.
    "$compose" down --volumes --remove-orphans --timeout 1 >&2 || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap : PIPE

"$compose" up --detach --no-build </dev/null >&2
echo ready 2>/dev/null || true
while read -r _; do :; done
