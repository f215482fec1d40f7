#!/usr/bin/env bash
# `make container-test`: builds the image with Docker Engine, and hands it to the tests beside this file.
#
# Sets up what is missing. Where no engine answers, it starts one of its own, whose images stay in target/container for the next run
# and which ends with the script. Where the builder's image cannot be pulled, it is made of Debian's packages and this machine's Rust.
# Needs root or sudo. Not part of `make test`: the first run takes a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/target/container
mkdir -p "$work"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)

say() { echo "container-test: $*" >&2; }

missing=()
command -v dockerd >/dev/null || missing+=(docker.io)
command -v docker-compose >/dev/null || missing+=(docker-compose)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log"
fi

# A newer client without its buildx cannot build with BuildKit; the one that came with the engine can.
docker=docker
docker buildx version >/dev/null 2>&1 || docker=/usr/bin/docker
export DOCKER_BUILDKIT=1

engine=
finish() {
    # The tests remove their containers. The engine is ours alone if we started it.
    [ -z "$engine" ] || { $sudo kill "$engine" && tail --pid="$engine" -f /dev/null; }
}
trap finish EXIT
if ! timeout 10 $docker info >/dev/null 2>&1; then
    say "no Docker Engine answers: starting one in $work/engine"
    mkdir -p "$work/engine"
    export DOCKER_HOST=unix://$work/engine/docker.sock
    rm -f "$work/engine/docker.pid"
    # All containers are in the machine's network, so the engine need not touch addresses and packet filters.
    $sudo setsid dockerd --host "$DOCKER_HOST" --group "$(id -g)" --pidfile "$work/engine/docker.pid" \
        --data-root "$work/engine/images" --exec-root "$work/engine/run" \
        --bridge=none --iptables=false --ip6tables=false >"$work/engine/log" 2>&1 &
    for _ in $(seq 60); do
        $docker info >/dev/null 2>&1 && break
        sleep 0.5
    done
    engine=$(cat "$work/engine/docker.pid") || { tail "$work/engine/log" >&2; exit 1; }
fi
$docker version --format 'container-test: client {{.Client.Version}}, engine {{.Server.Version}}' >&2

# Rust for the build: the image that the Dockerfile names, or one made here.
builder=$(sed -n 's/^ARG BUILDER=//p' Dockerfile)
if ! $docker image inspect "$builder" >/dev/null 2>&1 && ! timeout 300 $docker pull "$builder" >/dev/null 2>&1; then
    rust=$(rustc --print sysroot)
    builder=jackfield-builder:$(rustc --version | cut -d' ' -f2)-$([ -d "$rust/lib/rustlib/wasm32-wasip2" ] && echo wasm || echo native)
    if ! $docker image inspect "$builder" >/dev/null 2>&1; then
        say "no image can be pulled: making $builder of Debian's packages and $rust"
        command -v debootstrap >/dev/null || $sudo apt-get install -y -qq --no-install-recommends debootstrap >>"$work/apt.log"
        $sudo rm -rf "$work/builder" && mkdir "$work/builder"
        $sudo debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates bookworm "$work/builder" >"$work/debootstrap.log"
        $sudo rm -rf "$work/builder/var/cache/apt" "$work/builder/var/lib/apt/lists"
        $sudo mkdir -p "$work/builder/usr/local/cargo" "$work/builder/opt/rust"
        $sudo cp -a "$rust/bin" "$rust/lib" "$rust/libexec" "$work/builder/opt/rust/"
        # What this machine trusts, for its way to the registry; the image gets Debian's own authorities all the same.
        $sudo cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/builder/opt/authorities.crt"
        $sudo tar -C "$work/builder" -c . | $docker import \
            --change 'ENV PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin' \
            --change 'ENV CARGO_HOME=/usr/local/cargo SSL_CERT_FILE=/opt/authorities.crt' - "$builder" >/dev/null
        $sudo rm -rf "$work/builder"
    fi
fi

say "building the image"
build() { $docker build --network host --build-arg BUILDER="$builder" "$@" . 2>"$work/build.log" || { tail -50 "$work/build.log" >&2; exit 1; }; }
build --tag jackfield
build --target filters --output "$work/filters.d"

# For compose.yaml: this machine's redis-server as an image.
redis=$(command -v redis-server)
{ echo "$redis"; ldd "$redis" | grep -o '/[^ ]*'; } | sort -u | tar -ch --files-from=- --absolute-names |
    $docker import --change 'WORKDIR /data' - jackfield-test-redis >/dev/null

CONTAINER_DOCKER=$docker CONTAINER_FILTERS=$work/filters.d REDIS_IMAGE=jackfield-test-redis \
    cargo test --workspace --test container -- --test-threads 1 "$@"
