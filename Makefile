# `make` lists the targets. A fresh Debian 12 needs only `make`, Rust 1.89 or newer, and root or sudo.

# Debian keeps servers in /usr/sbin, which is not on an ordinary user's PATH; rustup keeps cargo in the home folder.
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

# The API server of the tests: built once, unless TEST_KUBECONFIG names a cluster or KUBEBUILDER_ASSETS the programs.
with_api = if [ -z "$$TEST_KUBECONFIG" ]; then KUBEBUILDER_ASSETS=$$(tests/kube/build.sh) && export KUBEBUILDER_ASSETS; fi &&

# Where `make install` puts its files, as packagers set it.
PREFIX ?= /usr/local
BINARY ?= $(or $(CARGO_TARGET_DIR),target)/release/ovn-kubevirt
SHARE = $(DESTDIR)$(PREFIX)/share

.PHONY: help setup demo check unit it test test-compose test-ovn soak fuzz bench audit fmt lint reference build install image compose-images clean
.DEFAULT_GOAL := help

help:
	@echo 'Targets:'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1 \2/p' $(MAKEFILE_LIST) | while read -r name what; do printf '  %-14s %s\n' "$$name" "$$what"; done
	@echo 'Variables:'
	@echo '  KEEP=1              make demo leaves everything running, and says how to reach it'
	@echo '  TEST_KUBECONFIG     a kubeconfig of a cluster that may be played with, instead of an API server of our own'
	@echo '  KUBEBUILDER_ASSETS  a folder with kube-apiserver and etcd (setup-envtest fetches one), instead of building them'
	@echo '  OVN_KUBEVIRT_CACHE  where built programs are kept (default: ~/.cache/ovn-kubevirt)'
	@echo '  DESTDIR, PREFIX     where make install puts its files (default: /usr/local)'
	@echo '  SUITE               for make test-ovn: the suite of Debian whose OVN is tested'
	@echo '  T                   for make unit, make it and make test-ovn: names of tests, and options of the test runner'
	@echo 'CONTRIBUTING.md has the variables of the tests, and how to replay a failure.'

# One invocation for the binary and the example: cargo gives both the same features of each crate, and compiles each crate once.
# The profile is that of `make test`, which finds these crates ready. Without link-time optimisation neither program is compiled again.
demo: setup ## the main job on a real OVN northbound and a real API server, shown step by step
	@$(with_api) cargo build --locked --bin ovn-kubevirt --example demo && cargo run --locked --example demo --

check: ## formatting, clippy and unit tests: needs Rust and a C compiler, no server and no root
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib

unit: ## the unit tests, or those of T: make unit T=ipam::
	cargo test --locked --lib -- $(T)

it: setup ## the integration tests, or those of T: make it T=story::
	@$(with_api) cargo test --locked --test integration -- $(or $(T),--skip datapath::) $(if $(findstring datapath,$(T)),--test-threads 1)

# Packets are counted while nothing else runs: each ping is to be answered once.
test: setup ## all tests: unit, property, integration, documentation, and test-compose
	@$(with_api) cargo test --locked -- --skip datapath::
	@$(with_api) cargo test --locked --test integration -- --test-threads 1 datapath::
	@tests/compose/run.sh

test-compose: setup ## the containers of docker-compose.yml under test, where Docker and Compose are there
	@tests/compose/run.sh

test-ovn: ## the integration tests, or those of T, on OVN of another suite of Debian: make test-ovn SUITE=trixie, SUITE=sid
	@tests/setup.sh debootstrap
	@unset TEST_KUBECONFIG; $(with_api) tests/ovn/run.sh "$(SUITE)" $(T)

soak: setup ## the long runs that `make test` takes a sample of: cuts at every byte, long histories, 20 migrations
	@OVN_KUBEVIRT_HISTORIES=$${HISTORIES:-100000} cargo test --locked --release --lib -- in_every_history
	@OVN_KUBEVIRT_FAULTS=2 cargo test --locked --release --lib -- chassis_rows_that_go
	@$(with_api) OVN_KUBEVIRT_CUT_STRIDE=1 OVN_KUBEVIRT_SOAK=20 OVN_KUBEVIRT_MIGRATIONS=20 OVN_KUBEVIRT_HISTORIES=100 cargo test --locked --test integration -- --nocapture cut:: client::the_replica client::histories addresses::histories datapath::

fuzz: setup ## the codec and the row decoder, fed with anything for FUZZ_SECONDS (60) each
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'fuzz: installing cargo-fuzz (a minute, once)'; cargo install --locked cargo-fuzz; }
	@for target in codec rows; do RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target -- -max_total_time=$${FUZZ_SECONDS:-60} || exit 1; done

bench: setup ## the measurements
	@$(with_api) cargo bench --locked

audit: setup ## licences, sources and known vulnerabilities of all dependencies
	@cargo deny --version >/dev/null 2>&1 || { echo 'audit: installing cargo-deny (a few minutes, once)'; cargo install --locked cargo-deny; }
	cargo deny --locked check bans licenses sources
	@if cargo deny --locked fetch db; then \
	    cargo deny --locked check --disable-fetch advisories; \
	else \
	    echo; echo 'audit: SKIPPED: the advisory database could not be fetched, so known vulnerabilities were NOT checked'; \
	fi

fmt: ## format the source
	cargo fmt

lint: setup ## formatting, clippy and documentation, warnings being errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

reference: ## write docs/reference.md from the code
	OVN_KUBEVIRT_REWRITE=1 cargo test --locked --lib cli::reference

build: ## the release binary: target/release/ovn-kubevirt
	cargo build --locked --release

# The binary writes its own manual pages and completions: it has to run on this machine.
install: ## after make build: the binary, the link of the kubectl plugin, manual pages, completions (DESTDIR, PREFIX)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/ovn-kubevirt
	ln -sf ovn-kubevirt $(DESTDIR)$(PREFIX)/bin/kubectl-ovn_kubevirt
	install -D -m 644 LICENSE $(SHARE)/doc/ovn-kubevirt/copyright
	$(BINARY) man $(SHARE)/man/man1
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BINARY) completions bash >$(SHARE)/bash-completion/completions/ovn-kubevirt
	$(BINARY) completions zsh >$(SHARE)/zsh/site-functions/_ovn-kubevirt
	$(BINARY) completions fish >$(SHARE)/fish/vendor_completions.d/ovn-kubevirt.fish

image: setup ## the container image, with nothing pulled: the binary of this machine, and libraries from Debian's packages
	cargo build --locked --release
	@deploy/image/build.sh $${CARGO_TARGET_DIR:-target}/release/ovn-kubevirt

compose-images: image ## all images of docker-compose.yml, with nothing pulled (then: --env-file deploy/offline.env)
	@deploy/image/compose-images.sh

clean: ## remove what cargo has built (the API server stays in the cache)
	cargo clean

setup: # installs what is missing, if anything
	@tests/setup.sh
