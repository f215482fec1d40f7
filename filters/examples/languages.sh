#!/bin/sh
# Builds the filter `screen` in C and in JavaScript, tries both like any filter, and shows what a call costs in each language.
# `make languages` runs it, with the host and the Rust filter built. Installs what is missing: Debian packages, one npm package and
# wit-bindgen by cargo; the latter two into target/languages.
set -eu

cd "$(dirname "$0")/../.."
tools=target/languages
host=target/release/jackfield
# That of the SDK's bindings, in guest-sdk/Cargo.toml: the same contract makes the same component.
wit_bindgen=0.63.0
componentize_qjs=0.4.5

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install() {
    echo "installing $*"
    as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

missing=
command -v clang >/dev/null || missing="$missing clang"
command -v wasm-ld >/dev/null || missing="$missing lld"
[ -e /usr/include/wasm32-wasi/stdlib.h ] || missing="$missing wasi-libc"
command -v npm >/dev/null || missing="$missing nodejs npm"
if [ -n "$missing" ]; then
    as_root apt-get update -qq
    # shellcheck disable=SC2086 # a word is a package
    install $missing
fi
# The compiler's own library, which is of the compiler's version.
if [ ! -e "$(clang --target=wasm32-wasi --print-libgcc-file-name)" ]; then
    install "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev-wasm32"
fi

mkdir -p $tools/c
if ! $tools/bin/wit-bindgen --version 2>/dev/null | grep -q " $wit_bindgen\$"; then
    echo "installing wit-bindgen $wit_bindgen"
    cargo install --quiet --locked --root $tools --no-default-features --features c wit-bindgen-cli@$wit_bindgen
fi
if ! grep -q "\"version\": \"$componentize_qjs\"" $tools/node_modules/componentize-qjs/package.json 2>/dev/null; then
    echo "installing componentize-qjs $componentize_qjs"
    npm install --silent --no-save --no-package-lock --prefix $tools componentize-qjs@$componentize_qjs
fi

$tools/bin/wit-bindgen c wit --world filter --out-dir $tools/c >/dev/null
clang --target=wasm32-wasi --sysroot=/usr -mexec-model=reactor -O2 -Wall -Wextra -Werror -I $tools/c \
    filters/examples/c/screen.c $tools/c/filter.c $tools/c/filter_component_type.o -o $tools/screen-c.wasm
$tools/node_modules/.bin/componentize-qjs --sync --minify --wit wit --world filter --js filters/examples/js/screen.js \
    --output $tools/screen-js.wasm >/dev/null
cp target/wasm32-wasip2/filter/screen.wasm $tools/screen-rust.wasm

echo 'surplus = 1' >$tools/wrong.toml
# What is measured is the call, not whether this machine is busy.
printf '[jackfield]\ndeadline = "1s"\n' >$tools/patient.toml
for language in rust c js; do
    filter=$tools/screen-$language.wasm
    $host filter check $filter
    if $host filter check $filter --settings $tools/wrong.toml >/dev/null 2>&1; then
        echo "screen-$language takes settings that it does not have"
        exit 1
    fi
    $host filter test $filter --golden filters/examples/rust/golden
done

echo
echo "one call                 p50        p99   beside an empty filter"
for language in rust c js; do
    size=$(($(wc -c <$tools/screen-$language.wasm) / 1024))
    $host filter bench $tools/screen-$language.wasm --settings $tools/patient.toml --calls 200000 --json | node -e '
        const [language, size] = process.argv.slice(1);
        const { filter, empty, ratio } = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const us = (ns) => `${(ns / 1000).toFixed(2)} µs`.padStart(11);
        console.log(`${language.padEnd(6)}${size.padStart(6)} KiB ${us(filter.p50_ns)}${us(filter.p99_ns)}   ${ratio.toFixed(1)} times its ${us(empty.p50_ns).trim()}`);
        if (filter.failures) { console.log(`${filter.failures} calls failed`); process.exit(1); }
    ' $language $size
done
