# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what is missing.

CARGO ?= cargo
FILTERS := call-record dedup enrich normalize project rate-limit ready redact route sample validate
CHAIN ?= default
SOAK_SECONDS ?= 300
FUZZED := framer event journal decision config
FUZZ_SECONDS ?= 60
TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_DENY := 0.20.2
ADVISORIES := $(or $(CARGO_HOME),$(HOME)/.cargo)/advisory-dbs

.PHONY: demo test release-test container-test deploy-check soak bench fuzz components filters chain languages lint deny toolchain redis chromium prometheus clean

## Run everything at once on the embedded defaults: make demo ARGS='--events 5000'
demo: toolchain redis filters
	$(CARGO) run --release --quiet -- demo $(ARGS)

## All tests: unit, property and end-to-end.
test: components redis chromium prometheus
	CARGO=$(CARGO) tests/all.sh

## The end-to-end tests on the binary that ships instead of the one of `make test`; some of them: make release-test TESTS='faults:: hostile'
release-test: components redis chromium prometheus
	$(CARGO) build --release -p jackfield --bin jackfield
	HOST_BINARY=$(abspath $(TARGET))/release/jackfield $(CARGO) test --workspace --test e2e -- $(TESTS)

## The image: built, and run in Docker Engine under limits, with kills and reloads. Beside `make test`: the first run takes a quarter of an hour.
container-test: toolchain redis
	tests/container/run.sh

## The systemd unit and the Kubernetes manifest, by systemd-analyze, the schemas of Kubernetes, and `jackfield check`.
deploy-check: toolchain
	deploy/check.sh

## The fault suite again and again, each test for so many seconds with new seeds: make soak SOAK_SECONDS=600 FAULTS=killed_host
soak: components redis
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test -p jackfield-tests --test e2e -- --test-threads 2 faults::$(FAULTS)

## The table of docs/benchmarks.md, measured anew and written there, in about 15 minutes. A short look that writes nothing: make bench QUICK=1
## Another program beside the host and the bare relay: make bench PEER='path/to/program args'. Some parts alone: make bench PARTS=latency,steps
bench: toolchain redis filters
	$(CARGO) build --profile filter --target wasm32-wasip2 -p yardstick
	$(CARGO) build --release -p jackfield --bin jackfield
	$(CARGO) build --release -p load
	$(CARGO) bench -p jackfield --bench event_path --no-run
	$(TARGET)/release/load $(if $(QUICK),--quick) $(if $(PEER),--peer "$(PEER)") $(if $(PARTS),--only $(PARTS))

## The fuzz targets one after the other: make fuzz FUZZ_SECONDS=300. What breaks a promise is put into the corpus as found-*, where
## `make test` fails on it; fixed, it stays there under a name that says what went wrong.
# Without a sanitizer: the host has no unsafe code that meets input, so it would watch the dependencies alone, halve the speed, and need a nightly
# compiler. What is merely new to the fuzzer goes to target/, and the versions of the dependencies are those that ship.
fuzz: toolchain
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	cp Cargo.lock tests/fuzz/libfuzzer/
	@failed=; for target in $(FUZZED); do \
		mkdir -p target/fuzz/corpus/$$target; \
		$(CARGO) fuzz run --fuzz-dir tests/fuzz/libfuzzer --target-dir target/fuzz --sanitizer none \
			$$target target/fuzz/corpus/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=4096 -print_final_stats=1 \
			-artifact_prefix=tests/fuzz/corpus/$$target/found- || failed="$$failed $$target"; \
	done; [ -z "$$failed" ] || { echo "broken:$$failed"; exit 1; }

# What the tests run: the filters that ship, and the hostile one.
components: toolchain
	$(CARGO) build --profile filter --target wasm32-wasip2 $(addprefix -p ,$(FILTERS)) -p hostile

## The filters that ship, as components.
filters: toolchain
	$(CARGO) build --profile filter --target wasm32-wasip2 $(addprefix -p ,$(FILTERS))

## A chain of filters/chains with its components, in target/chains: make chain CHAIN=production
chain: filters
	@rm -rf target/chains/$(CHAIN) && mkdir -p target/chains/$(CHAIN)
	@for settings in filters/chains/$(CHAIN)/[0-9]*.toml; do \
		file=$$(basename $$settings .toml); name=$${file#*-}; \
		cp $$settings target/chains/$(CHAIN)/ && \
		cp target/wasm32-wasip2/filter/$$(echo $$name | tr - _).wasm target/chains/$(CHAIN)/$$file.wasm || exit 1; \
	done
	@ls target/chains/$(CHAIN)

## The same filter in Rust, C and JavaScript: built, tried, and what a call costs in each. Not part of `make test`: it installs compilers.
languages: toolchain
	$(CARGO) build --release -p jackfield
	$(CARGO) build --profile filter --target wasm32-wasip2 -p screen
	filters/examples/languages.sh

## Format and lints, as CI runs them.
lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

## Licenses, origins and known vulnerabilities of all dependencies, by .cargo/deny.toml.
# Built without optimization, which halves the time. The advisories come from a database on the network. Where that cannot be reached, everything else is checked all the same, and the
# last line says what was not; what the database has against a dependency fails.
deny: toolchain
	@if ! command -v cargo-deny >/dev/null && ! $(CARGO) install --locked --debug cargo-deny --version $(CARGO_DENY); then \
		echo "dependencies NOT CHECKED: cargo-deny $(CARGO_DENY) cannot be installed here"; exit 0; \
	fi; \
	$(CARGO) deny --log-level error check licenses bans sources || exit 1; \
	if why=$$(GIT_TERMINAL_PROMPT=0 timeout 120 $(CARGO) deny fetch db 2>&1) || [ -n "$$(ls -d $(ADVISORIES)/*/ 2>/dev/null)" ]; then \
		$(CARGO) deny check --disable-fetch advisories; \
	else \
		echo "advisories and yanked versions NOT CHECKED: the database of advisories cannot be reached from here:"; echo "$$why"; \
	fi

# rust-toolchain.toml pins the compiler and the Wasm target; RUSTUP_AUTO_INSTALL may be off.
toolchain:
	@rustup toolchain install --no-self-update >/dev/null 2>&1 || rustup toolchain install --no-self-update

redis:
	@command -v redis-server >/dev/null || { \
		echo "installing redis-server"; \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends redis-server; \
	}

# For the tests of the page.
chromium:
	@command -v chromium >/dev/null || { \
		echo "installing chromium"; \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends chromium; \
	}

prometheus:
	@command -v prometheus >/dev/null || { \
		echo "installing prometheus, for the tests of alerts and dashboard"; \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends prometheus; \
	}

clean:
	$(CARGO) clean
