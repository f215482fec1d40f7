# The image of Jackfield: one static binary and the authorities' certificates; no shell, no libraries, no user but the one that runs it.
#
#   docker build -t jackfield .
#   docker build --target filters --output filters.d .   # the filters that ship, as components, into ./filters.d
#
# BUILDER is any image with this Rust, a C compiler and CA certificates. BASE is what the binary is put on; it needs nothing of it.
# Built with BuildKit, for the cache mounts: `DOCKER_BUILDKIT=1` before Docker 23.
ARG BUILDER=rust:1.95-bookworm
ARG BASE=scratch

FROM ${BUILDER} AS source
WORKDIR /source
COPY . .

FROM source AS components
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    for manifest in filters/*/Cargo.toml; do \
        set -- "$@" -p "$(basename "$(dirname "$manifest")")"; \
    done && \
    cargo build --locked --profile filter --target wasm32-wasip2 "$@" && \
    mkdir /components && cp target/wasm32-wasip2/filter/*.wasm /components

FROM scratch AS filters
COPY --from=components /components /

# Static, so that it fits any base. The target is named to keep the flag away from what runs while it builds.
FROM source AS binary
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    host=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$host" -p jackfield && \
    mkdir -p /folders/data /folders/filters.d && \
    strip --strip-debug -o /jackfield "target/$host/release/jackfield"

FROM ${BASE}
COPY --from=binary /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=binary /jackfield /usr/local/bin/jackfield
COPY --from=binary --chown=65532:65532 /folders /jackfield
USER 65532:65532
# Where `jackfield.toml`, `filters.d` and `data/journal` are looked for: the defaults of the settings hold in the image, too.
WORKDIR /jackfield
ENV HEALTH_PORT=9876
EXPOSE 9876
VOLUME /jackfield/data
HEALTHCHECK --interval=10s --timeout=11s --start-period=30s CMD ["/usr/local/bin/jackfield", "health"]
ENTRYPOINT ["/usr/local/bin/jackfield"]
CMD ["run"]
