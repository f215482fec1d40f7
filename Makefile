# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what is missing.

CARGO ?= cargo
FILTERS := redact route project
SOAK_SECONDS ?= 300

.PHONY: demo test soak bench filters lint toolchain redis clean

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
