# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what is missing.

CARGO ?= cargo
FILTERS := redact route project
SOAK_SECONDS ?= 300
FUZZED := framer event journal decision config
FUZZ_SECONDS ?= 60

.PHONY: demo test soak bench fuzz filters lint toolchain redis clean

## Run everything at once on the embedded defaults: make demo ARGS='--events 5000'
demo: toolchain redis filters
	$(CARGO) run --release --quiet -- demo $(ARGS)

## All tests: unit, property and end-to-end.
test: toolchain redis
	$(CARGO) build --profile filter --target wasm32-wasip2 $(addprefix -p ,$(FILTERS)) -p hostile
	$(CARGO) test --workspace

## The fault suite again and again, each test for so many seconds with new seeds: make soak SOAK_SECONDS=600 FAULTS=killed_host
soak: toolchain redis
	$(CARGO) build --profile filter --target wasm32-wasip2 $(addprefix -p ,$(FILTERS)) -p hostile
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test -p jackfield-tests --test e2e -- --test-threads 2 faults::$(FAULTS)

## The benchmarks of the event path, the journal and the transaction.
bench: toolchain redis filters
	$(CARGO) build --profile filter --target wasm32-wasip2 -p yardstick
	$(CARGO) bench -p jackfield

## The fuzz targets one after the other: make fuzz FUZZ_SECONDS=300. What breaks a promise is put into the corpus as found-*, where
## `make test` fails on it; fixed, it stays there under a name that says what went wrong.
# Without a sanitizer: the host has no unsafe code, so it would watch the dependencies alone, halve the speed, and need a nightly
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

## The filters that ship, as components.
filters: toolchain
	$(CARGO) build --profile filter --target wasm32-wasip2 $(addprefix -p ,$(FILTERS))

## Format and lints, as CI runs them.
lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# rust-toolchain.toml pins the compiler and the Wasm target; RUSTUP_AUTO_INSTALL may be off.
toolchain:
	@rustup toolchain install --no-self-update >/dev/null 2>&1 || rustup toolchain install --no-self-update

redis:
	@command -v redis-server >/dev/null || { \
		echo "installing redis-server"; \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends redis-server; \
	}

clean:
	$(CARGO) clean
