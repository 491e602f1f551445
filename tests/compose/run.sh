#!/usr/bin/env bash
# Runs the test of docker-compose.yml where Docker and Compose are there, and says loudly where they are not.
#
# usage: run.sh                      exit status 0 as well where it cannot run
#
#   OVN_KUBEVIRT_ENV_FILE            which images, as for compose.sh: with .env they are pulled, and built from pulled ones
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
skip() {
    printf '\n!!! test-compose: SKIPPED: %s. The image and docker-compose.yml were NOT tested.\n\n' "$*"
    exit 0
}
docker info >/dev/null 2>&1 || skip 'no Docker engine answers (docker info)'
tests/compose/compose.sh version >/dev/null 2>&1 || skip 'Compose is missing (docker-compose, or docker compose)'
if [ "${OVN_KUBEVIRT_ENV_FILE:-deploy/offline.env}" = deploy/offline.env ]; then
    cargo build --locked --release
    deploy/image/build.sh "${CARGO_TARGET_DIR:-target}/release/ovn-kubevirt"
    deploy/image/compose-images.sh
else
    tests/compose/compose.sh build
fi
exec cargo test --locked --test compose -- --ignored --nocapture
