# One image for every service: the executable, the C library it is linked to, and certificate
# authorities. No shell, no package manager, no compiler.

ARG BUILD_IMAGE=rust:1.95-slim-trixie
# With a C library that is as new as that of the other, or of glibc 2.36 at least.
ARG RUN_IMAGE=gcr.io/distroless/cc-debian13:nonroot

FROM ${BUILD_IMAGE} AS build
# `fat` and 1, as outside of containers, make a smaller executable, and optimise all dependencies anew
# in every build.
ARG LTO=off
ARG CODEGEN_UNITS=16
# The allocator is built by it, and not every such image has it.
RUN command -v make >/dev/null \
    || (apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*)
WORKDIR /build
COPY . .
# Downloads and compiled dependencies are kept between builds, so a changed source compiles only the
# crates of this repository. Those it always compiles: cargo looks at times, and sources of another
# checkout may be older than what was last built here.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target,id=waybill-target,sharing=locked \
    find . -type f -exec touch {} + \
    && CARGO_TARGET_DIR=/target CARGO_PROFILE_RELEASE_LTO=${LTO} \
       CARGO_PROFILE_RELEASE_CODEGEN_UNITS=${CODEGEN_UNITS} \
       CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols \
       cargo build --release --locked --bin waybill \
    && cp /target/release/waybill /waybill

FROM ${RUN_IMAGE}
COPY --from=build /waybill /waybill
USER 65532:65532
ENV WAYBILL_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --retries=3 CMD ["/waybill", "healthcheck"]
ENTRYPOINT ["/waybill"]
# Last, because they change with every commit.
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="Waybill" \
      org.opencontainers.image.description="An order pipeline that you can audit." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
