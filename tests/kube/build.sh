#!/usr/bin/env bash
# Makes sure that there is a folder with kube-apiserver, kube-controller-manager and etcd, and prints its path.
#
# usage: build.sh            stdout: the folder, one line; stderr: progress
#
#   KUBEBUILDER_ASSETS       a folder that has kube-apiserver and etcd already (as setup-envtest fills it): nothing is built
#   OVN_KUBEVIRT_CACHE       where the built programs are kept (default: $XDG_CACHE_HOME/ovn-kubevirt, ~/.cache/ovn-kubevirt)
#   DEBIAN_MIRROR            the Debian mirror to use (default: the one in this machine's apt sources)
#
# Debian 12 packages kubectl but not the API server, though the source package has it: so it is compiled from there. The
# tools for that (Go 1.19 and a few more) are unpacked into the work folder, not installed: this needs no root, changes
# nothing outside the cache folder, and starts no service. It takes a few minutes once, 3 GB while it runs, and
# leaves 130 MB.
set -euo pipefail

version=1.20.2
# shellcheck source=tests/cached.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cached.sh"
keep "kube-$version"

complete() { # FOLDER PROGRAM...: true when all the programs are in the folder
    local folder=$1 program
    shift
    for program; do [ -x "$folder/$program" ] || return 1; done
}

# --- nothing to do? ----------------------------------------------------------------------------------------------------

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    for program in kube-apiserver etcd; do
        complete "$KUBEBUILDER_ASSETS" "$program" ||
            fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no executable '$program'; name a folder with kube-apiserver and etcd, or unset it to have them built"
    done
    realpath "$KUBEBUILDER_ASSETS"
    exit
fi
programs=(kube-apiserver kube-controller-manager etcd)
if complete "$result" "${programs[@]}"; then
    realpath "$result"
    exit
fi

# --- one build at a time -----------------------------------------------------------------------------------------------

command -v apt-get >/dev/null || fail "no apt-get here: set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd (setup-envtest fetches one)"
take_turns
if complete "$result" "${programs[@]}"; then
    echo "$result"
    exit
fi

begin
mkdir "$work/out" "$work/tools" "$work/tmp"
export PATH=$work/tools/usr/lib/go-1.19/bin:$work/tools/usr/bin:$PATH

# --- Debian's packages, by an apt configuration of our own: nothing under /etc/apt or /var/lib changes ---------------------

apt_private() { APT_CONFIG=$work/apt/apt.conf apt-get -q -o Acquire::Retries=3 "$@"; }

fetch_packages() {
    local signed_by=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
    : >"$work/apt/status"
    printf '%s [signed-by=%s] %s bookworm main\n' deb "$signed_by" "$mirror" deb-src "$signed_by" "$mirror" >"$work/apt/sources.list"
    # The sandbox user of apt may not enter a home folder, hence root for root; for anybody else it changes nothing.
    cat >"$work/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$work/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$work/apt/state";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
    apt_private update
    mkdir "$work/packages"
    cd "$work/packages"
    # patch and xz are missing from small images.
    apt_private download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev etcd-server patch xz-utils
    apt_private source --download-only --only-source kubernetes
    local deb
    for deb in *.deb; do dpkg-deb -x "$deb" "$work/tools"; done
}

# --- the source ------------------------------------------------------------------------------------------------------------

unpack_source() { # as dpkg-source does for format 3.0 (quilt), but without dpkg-dev
    compgen -G "$work/packages/kubernetes_*really$version-*.dsc" >/dev/null || { echo "bookworm no longer has Kubernetes $version"; return 1; }
    mkdir -p "$source"
    tar -xf "$work"/packages/kubernetes_*.orig.tar.* -C "$source" --strip-components=1
    tar -xf "$work"/packages/kubernetes_*.debian.tar.* -C "$source"
    cd "$source"
    local name
    while read -r name _; do
        case $name in '' | '#'*) continue ;; esac
        patch -p1 --batch --forward <"debian/patches/$name"
    done <debian/patches/series
}

adapt_to_go() { # what Kubernetes 1.20 needs to run when it is built with Go 1.18 or newer
    cd "$source"
    # modern-go/reflect2 1.0.1 reads freed memory (the API server crashes at the first custom resource): Debian's 1.0.2.
    local reflect2=vendor/github.com/modern-go/reflect2
    rm -f $reflect2/*.go $reflect2/*.s
    cp "$work/tools/usr/share/gocode/src/github.com/modern-go/reflect2"/*.{go,s} $reflect2/
    rm -f $reflect2/*_test.go
    # The schema validator compares reflect.Value structs to find null, and takes every empty string for one: a CRD with
    # `default: ""` is refused, and so is a custom resource with an empty string. Only nil maps and pointers are null.
    local validator was='data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data))'
    local now='v := reflect.ValueOf(data); data == nil || ((v.Kind() == reflect.Map || v.Kind() == reflect.Ptr) \&\& v.IsNil())'
    for validator in k8s.io/kube-openapi/pkg/validation/validate/type.go github.com/go-openapi/validate/type.go; do
        sed -i "s/if $was {/if $now {/" "vendor/$validator"
        grep -q 'v.IsNil()) {' "vendor/$validator" || { echo "$validator is not as expected"; return 1; }
    done
}

# --- the programs ------------------------------------------------------------------------------------------------------------

generate_openapi() { # release archives leave out this one generated package; the inputs are all packages that carry the tag
    cd "$gopath_source"
    go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    local roots=(pkg cmd plugin) module inputs
    for module in staging/src/k8s.io/*/; do
        module=$(basename "$module")
        # Neither is linked into the programs.
        case $module in code-generator | sample-apiserver) ;; *) roots+=("vendor/k8s.io/$module/") ;; esac
    done
    inputs=$(grep -rlF --include='*.go' --exclude='*_test.go' --exclude-dir=testdata '+k8s:openapi-gen=' "${roots[@]}" |
        xargs -n 1 dirname | LC_ALL=C sort -u | sed 's,^,k8s.io/kubernetes/,' | paste -sd,)
    "$work/openapi-gen" --input-dirs "$inputs" --output-package k8s.io/kubernetes/pkg/generated/openapi \
        --output-file-base zz_generated.openapi --go-header-file vendor/k8s.io/code-generator/hack/boilerplate.go.txt \
        --report-filename "$work/violations"
}

compile() {
    cd "$gopath_source"
    local stamp='' variable
    for variable in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        variable=k8s.io/kubernetes/vendor/$variable
        stamp+=" -X $variable.gitVersion=v$version -X $variable.gitMajor=1 -X $variable.gitMinor=20 -X $variable.gitTreeState=clean"
    done
    # No cloud providers: half of the code that would be compiled.
    go build -tags providerless -ldflags "-s -w$stamp" -o "$work/out/" ./cmd/kube-apiserver ./cmd/kube-controller-manager
    cp "$work/tools/usr/bin/etcd" "$work/out/"
    "$work/out/kube-apiserver" --version
    "$work/out/etcd" --version
}

mirror=$(mirror) || fail "found no Debian mirror in this machine's apt sources: set DEBIAN_MIRROR, or KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd"
source=$work/kubernetes
# A GOPATH build, as Debian's own rules do: the source expects to be found under its import path.
gopath_source=$work/gopath/src/k8s.io/kubernetes
mkdir -p "${gopath_source%/*}"
ln -s "$source" "$gopath_source"
export GOROOT=$work/tools/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=$work/gocache GOTMPDIR=$work/tmp
export GO111MODULE=off GOFLAGS='' CGO_ENABLED=0

say "building kube-apiserver and kube-controller-manager $version into $result (once; a few minutes)"
step "fetching Debian's packages" fetch_packages
step "unpacking the source" unpack_source
step "adapting it to Go 1.19" adapt_to_go
step "generating OpenAPI" generate_openapi
step "compiling" compile
mv "$work/out" "$result"
say "built: $(du -sh "$result" | cut -f1)"
echo "$result"
