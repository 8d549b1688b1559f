# Perihelion. `make` lists the targets.
SHELL := bash
.DEFAULT_GOAL := help
CARGO ?= cargo

# RocksDB is compiled once into the user's cache (.ci/setup) and linked from there.
export ROCKSDB_LIB_DIR := $(shell .ci/setup cache)
export ROCKSDB_STATIC := 1

.PHONY: help setup build localnet localnet-down localnet-clean test test-crash sim lint bench bench-quick bench-growth bench-compare bench-consensus interop vectors docs clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install or name what the build needs; compile RocksDB once
	@.ci/setup

build: setup ## the perihelion binary, optimised: target/release/perihelion
	$(CARGO) build --release --locked -p perihelion-node

# Built with its progress shown, and then run without cargo's words.
LOCALNET = $(CARGO) build --release --locked -p perihelion-testkit --bin localnet && \
  $(CARGO) run --release --locked -q -p perihelion-testkit --bin localnet --

localnet: build ## a network on this machine, live; Ctrl-C ends it. VALIDATORS, COMETBFT_VALIDATORS, COMETBFT, FULL_NODES, LATE, LOAD, APP, BLOCKS, ONCE, BASE_PORT, LOCALNET_DIR
	@$(LOCALNET)

localnet-down: build ## stop the network in LOCALNET_DIR from another terminal
	@$(LOCALNET) down

localnet-clean: build ## remove LOCALNET_DIR, where no network runs
	@$(LOCALNET) clean

test: setup ## every test
	$(CARGO) test --workspace --locked

test-crash: build ## a sync is killed COUNT times (default 200), its power cut as often, by SEED (default 1)
	PERIHELION_CRASHES=$(or $(COUNT),200) PERIHELION_CRASH_SEED=$(or $(SEED),1) $(CARGO) test --release --locked \
	  -p perihelion-testkit --test crash -- --nocapture --test-threads=1

sim: setup ## consensus in SEEDS simulated networks (default 100000)
	PERIHELION_SIM_SEEDS=0..$(or $(SEEDS),100000) $(CARGO) test --release --locked \
	  -p perihelion-consensus --test it simulated -- --nocapture

lint: setup ## no merge left half done, formatting, clippy without a warning, dependencies
	@! git grep -nE '^(<{7}|>{7}) ' || { echo 'a merge was left half done here'; exit 1; }
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then \
	  $(CARGO) fetch --locked --quiet; \
	  $(CARGO) deny --workspace --offline check bans licenses sources; \
	else echo "cargo-deny is not installed (cargo install cargo-deny): dependencies were NOT checked"; fi

BENCH_SYNC = $(CARGO) run --release --locked -q -p perihelion-testkit --bin bench-sync --

bench: build ## stages, whole syncs, serving: each goal of speed; beside CometBFT when COMETBFT names a binary. BENCH_FLAGS
	$(CARGO) bench --locked -p perihelion-testkit --bench stages
	$(BENCH_SYNC) --plots target/bench-plots $(BENCH_FLAGS)

bench-quick: build ## the same with shorter chains, once, in minutes. BENCH_FLAGS
	$(BENCH_SYNC) --quick --runs 1 $(BENCH_FLAGS)

bench-growth: build ## a sync of a million blocks, timed at its beginning and end
	$(BENCH_SYNC) --rows growth --runs 3 --plots target/bench-plots

bench-compare: setup ## two commits in pairs: BASE=commit (HEAD=commit). BENCH_FLAGS
	CARGO="$(CARGO)" tests/compare-commits "$(BASE)" $(or $(HEAD),HEAD) $(BENCH_FLAGS)

bench-consensus: build ## networks of 4 validators under load; beside CometBFT when COMETBFT names a binary
	$(CARGO) run --release --locked -q -p perihelion-testkit --bin bench-consensus

interop: build ## against a real CometBFT: COMETBFT=/path/to/cometbft ABCI_CLI=/path/to/abci-cli make interop
	PERIHELION_INTEROP=1 $(CARGO) test --release --locked -p perihelion-testkit --test interop -- --nocapture --test-threads=1

vectors: ## make tests/vectors again (needs Go 1.25 or newer)
	cd tests/vectors/maker && go run . .. && go run -modfile=go40.mod -tags v40 . .. && go run . check ..

docs: setup ## the API's documentation, without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

clean: ## remove what was built (the cached RocksDB stays)
	$(CARGO) clean
