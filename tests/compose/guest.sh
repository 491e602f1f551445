#!/usr/bin/env bash
# Plays the launcher pod of a VM, and the CNI: a container for a guest on a chassis of docker-compose.yml, which is plugged
# with its port's name as iface-id and has the port's MAC and address.
#
# usage: guest.sh add CHASSIS PORT            guest.sh add chassis1 testvm.default
#        guest.sh exec PORT COMMAND...        guest.sh exec testvm.default ping -c 3 10.16.0.15
#        guest.sh remove CHASSIS PORT
#
# COMPOSE_PROJECT_NAME says in which project, as for Compose.
set -euo pipefail

project=${COMPOSE_PROJECT_NAME:-ovn-kubevirt}

container() { # SERVICE
    local id
    id=$(docker ps --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1")
    [ -n "$id" ] || { echo "guest.sh: no $1 runs in project $project" >&2; exit 1; }
    echo "$id"
}
name() { echo "$project-guest-$1"; } # PORT

case ${1:-} in
add)
    chassis=$(container "$2") central=$(container ovn-central) port=$3
    read -r mac address < <(docker exec "$central" ovn-nbctl --timeout=5 lsp-get-addresses "$port")
    subnet=$(docker exec "$central" ovn-nbctl --timeout=5 get Logical_Switch ovn-default other_config:subnet | tr -d '"')
    # No privilege: the chassis can hand over the veth since it sees the guest's process.
    docker run --detach --rm --name "$(name "$port")" --network none --pid "container:$chassis" --read-only \
        --cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW --security-opt no-new-privileges:true \
        --entrypoint guest "$(docker inspect --format '{{.Config.Image}}' "$chassis")" run "$port" >/dev/null
    docker exec "$chassis" guest plug "$port" "$mac"
    docker exec "$(name "$port")" guest address "$port" "$address/${subnet#*/}"
    ;;
exec)
    docker exec "$(name "$2")" "${@:3}"
    ;;
remove)
    docker exec "$(container "$2")" guest unplug "$3"
    docker rm --force "$(name "$3")" >/dev/null
    ;;
*)
    sed -n '/^# usage/,/^#$/ s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
