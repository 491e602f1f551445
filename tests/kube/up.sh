#!/usr/bin/env bash
# Starts a Kubernetes API on loopback: etcd, kube-apiserver and, where the folder has it, kube-controller-manager.
#
# usage: up.sh RUN_DIR       RUN_DIR is made where missing, and must not have been used before
#
# Writes RUN_DIR/kubeconfig (cluster-admin), RUN_DIR/{etcd,apiserver,kcm}.log and .pid; down.sh RUN_DIR ends it all.
# The programs are in the folder that build.sh prints. AUDIT=1 logs every request's metadata in RUN_DIR/audit.log.
#
# All of it is for one test run: nothing is synced to disk, nothing is limited that would only make tests wait.
set -euo pipefail
umask 077

here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
run_dir=$(realpath -m "${1:?usage: up.sh RUN_DIR}")
begun=${EPOCHREALTIME/./}

say() { printf '[%5d ms] %s\n' $(((${EPOCHREALTIME/./} - begun) / 1000)) "$*" >&2; }
fail() { printf 'up.sh: %s\n' "$*" >&2; exit 1; }

# A signal ends this at the next poll, never between the start of a daemon and the note of its pid.
stop=
trap 'stop=1' INT TERM HUP

[ ! -e "$run_dir/pki" ] || fail "$run_dir has been used before: take a new folder"
bin=$("$here/build.sh")
mkdir -p "$run_dir/pki"
cd "$run_dir"

# --- daemons and ports -----------------------------------------------------------------------------------------------------

start() { # NAME PROGRAM ARGUMENT...: in the background, in a session of its own, so that a ^C is for down.sh to obey
    local name=$1
    shift
    setsid "$@" >"$name.log" 2>&1 </dev/null &
    echo $! >"$name.pid"
}

free_port() { # a port without a listener, below those that the kernel hands out for outgoing connections
    local port
    while :; do
        port=$((10000 + SRANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

await() { # NAME WHAT SECONDS CONDITION...: 0 when the condition holds, 2 when the daemon ended because its port was taken
    local name=$1 what=$2 deadline=$((SECONDS + $3))
    shift 3
    until "$@"; do
        [ -z "$stop" ] || fail "told to stop"
        if ! kill -0 "$(<"$name.pid")" 2>/dev/null; then
            ! grep -q 'address already in use' "$name.log" || return 2
            fail "$name ended before $what: see $name.log"
        fi
        [ "$SECONDS" -lt "$deadline" ] || fail "no $what in time: see $name.log"
        sleep 0.03
    done
    say "$what"
}

with_free_port() { # FUNCTION: calls it with a port till it does not return 2
    local port status attempt
    for attempt in 1 2 3 4 5 6 7 8; do
        port=$(free_port)
        status=0
        "$1" "$port" || status=$?
        [ "$status" = 2 ] || return "$status"
        say "port $port was taken meanwhile (attempt $attempt)"
    done
    fail "no free port"
}

# --- certificates and tokens -----------------------------------------------------------------------------------------------

make_certificates() { # elliptic curves: an RSA key can take a second to find
    cat >pki/openssl.cnf <<'CONF'
[req]
distinguished_name = name
prompt = no
[name]
CN = ovn-kubevirt-test
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1,DNS:localhost
authorityKeyIdentifier = keyid
CONF
    local new=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650 -config pki/openssl.cnf)
    openssl req -x509 "${new[@]}" -extensions ca -subj /CN=test-ca -keyout pki/ca.key -out pki/ca.crt
    openssl req -x509 "${new[@]}" -extensions server -subj /CN=kube-apiserver -CA pki/ca.crt -CAkey pki/ca.key -keyout pki/apiserver.key -out pki/apiserver.crt
    openssl ecparam -name prime256v1 -genkey -noout -out pki/service-accounts.key
}

make_tokens() {
    local token
    token=$(openssl rand -hex 24)
    echo "$token,admin,admin,system:masters" >pki/tokens.csv
    # In a file, since arguments show in the list of processes.
    echo "Authorization: Bearer $token" >pki/authorization
}

write_kubeconfig() {
    cat >kubeconfig <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "$server", certificate-authority-data: $(base64 -w 0 pki/ca.crt)}}]
users: [{name: admin, user: {token: $(cut -d , -f 1 pki/tokens.csv)}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
CONFIG
}

# --- etcd --------------------------------------------------------------------------------------------------------------------

etcd_listens() { [ -d etcd/member ]; } # it makes its files after it has its ports

start_etcd() { # PORT
    # One member elects itself: no need to wait long for others. The peer port is never used: any will do.
    start etcd "$bin/etcd" ${no_fsync:+"$no_fsync"} --name=test --data-dir="$run_dir/etcd" \
        --heartbeat-interval=20 --election-timeout=200 \
        --listen-client-urls="http://127.0.0.1:$1" --advertise-client-urls="http://127.0.0.1:$1" --listen-peer-urls=http://127.0.0.1:0
    await etcd "etcd listens" 30 etcd_listens || return
    etcd_port=$1
}

# --- kube-apiserver ------------------------------------------------------------------------------------------------------------

api() { # PATH [CURL OPTION...]
    local path=$1
    shift
    curl --silent --max-time 10 --cacert pki/ca.crt --header @pki/authorization "$@" "$server$path"
}
api_is_ready() { [ "$(api /readyz --max-time 2 || true)" = ok ]; }

start_apiserver() { # PORT
    local audit=()
    if [ -n "${AUDIT:-}" ]; then
        printf '%s\n' 'apiVersion: audit.k8s.io/v1' 'kind: Policy' 'rules: [{level: Metadata}]' >pki/audit.yaml
        audit=(--audit-policy-file="$run_dir/pki/audit.yaml" --audit-log-path="$run_dir/audit.log")
    fi
    # ServiceAccount admission would keep a test waiting, after each new namespace, for an account and its token that no
    # pod here will ever use: no kubelet runs.
    start apiserver "$bin/kube-apiserver" --etcd-servers="http://127.0.0.1:$etcd_port" \
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$1" --endpoint-reconciler-type=none \
        --cert-dir="$run_dir/pki" --tls-cert-file="$run_dir/pki/apiserver.crt" --tls-private-key-file="$run_dir/pki/apiserver.key" \
        --token-auth-file="$run_dir/pki/tokens.csv" --authorization-mode=RBAC \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$run_dir/pki/service-accounts.key" \
        --service-account-signing-key-file="$run_dir/pki/service-accounts.key" --service-cluster-ip-range=10.96.0.0/16 \
        --disable-admission-plugins=ServiceAccount --allow-privileged=true \
        --max-requests-inflight=3000 --max-mutating-requests-inflight=1000 "${audit[@]}"
    server=https://127.0.0.1:$1
    await apiserver "kube-apiserver is ready" 120 api_is_ready
}

# --- custom resources ------------------------------------------------------------------------------------------------------------

apply_crds() {
    mkdir crds
    awk -v RS='---\n' '{ printf "%s", $0 > sprintf("crds/%02d.yaml", NR) }' "$here/crds.yaml"
    local crd
    for crd in crds/*.yaml; do
        api /apis/apiextensions.k8s.io/v1/customresourcedefinitions --fail-with-body --header 'Content-Type: application/yaml' --data-binary "@$crd" >crds/answer ||
            fail "a custom resource was refused: $(<crds/answer)"
    done
    crd_names=$(sed -n 's/^  name: //p' "$here/crds.yaml")
}

crds_are_established() { # in the discovery documents, which the garbage collector reads once at its start, then every 30 s
    local name plural group
    for name in $crd_names; do
        plural=${name%%.*} group=${name#*.}
        api /apis | grep -q "\"name\": *\"$group\"" || return 1
        api "/apis/$group/v1" | grep -q "\"name\": *\"$plural\"" || return 1
    done
}

# --- kube-controller-manager -----------------------------------------------------------------------------------------------------

kcm_works() { api /api/v1/namespaces/default/serviceaccounts/default --fail >/dev/null; }

start_kcm() { # deletes what owners or namespaces leave behind, and makes service accounts
    # Its own names for its controllers changed in 1.27, and the plain HTTP port went in 1.24. It listens nowhere here.
    local old=() controllers=namespace-controller,garbage-collector-controller,serviceaccount-controller,root-ca-certificate-publisher-controller
    [ "$minor" -ge 27 ] || controllers=namespace,garbagecollector,serviceaccount,serviceaccount-token,root-ca-cert-publisher
    [ "$minor" -ge 24 ] || old=(--port=0)
    start kcm "$bin/kube-controller-manager" --kubeconfig="$run_dir/kubeconfig" --leader-elect=false --secure-port=0 "${old[@]}" \
        --cert-dir="$run_dir/pki" --service-account-private-key-file="$run_dir/pki/service-accounts.key" --root-ca-file="$run_dir/pki/ca.crt" \
        --controllers="$controllers" --kube-api-qps=200 --kube-api-burst=400 \
        --concurrent-gc-syncs=50 --concurrent-namespace-syncs=50 --concurrent-serviceaccount-token-syncs=20
    await kcm "kube-controller-manager works" 60 kcm_works
}

# ---------------------------------------------------------------------------------------------------------------------------------

# Each of these takes a moment, so they run side by side.
"$bin/kube-apiserver" --version >version &
version_pid=$!
make_certificates >pki/openssl.log 2>&1 &
certificates_pid=$!
make_tokens
no_fsync=
! "$bin/etcd" --help 2>&1 | grep -q -e --unsafe-no-fsync || no_fsync=--unsafe-no-fsync
with_free_port start_etcd
wait "$certificates_pid" || fail "openssl failed: $(<pki/openssl.log)"
with_free_port start_apiserver
write_kubeconfig
apply_crds
await apiserver "custom resources are established" 30 crds_are_established
wait "$version_pid" || fail "$bin/kube-apiserver does not run"
minor=$(sed -E 's/.* v1\.([0-9]+).*/\1/' version)
[ ! -x "$bin/kube-controller-manager" ] || start_kcm
say "Kubernetes 1.$minor is up"
echo "export KUBECONFIG=$run_dir/kubeconfig"
