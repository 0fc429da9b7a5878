# An image that serves a model (Dockerfile.dev is the one for development):
#   docker build -t tallow .
#   docker run -p 127.0.0.1:8000:8000 -v tallow-models:/models tallow serve qwen3:4b --memory 6GiB
# Models, what was measured of them, and prompts on disk are kept in /models.
FROM rust:1.95.0-bookworm AS build
# The image's own toolchain; rust-toolchain.toml would have rustup fetch components that a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /tallow
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/tallow/target \
    cargo build --profile dist --locked -p tallow \
    && install -D target/dist/tallow /out/bin/tallow \
    && mkdir -p /out/share/tallow \
    && cp -rL models/demo /out/share/tallow/demo

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /models tallow \
    && install -d -o tallow -g tallow /models
COPY --from=build /out /usr/local
USER 10001:10001
ENV HF_HOME=/models TALLOW_CACHE_DIR=/models/tallow TALLOW_HOST=0.0.0.0
VOLUME /models
WORKDIR /models
EXPOSE 8000
# A shell that opens connections, since no program here speaks HTTP. A model is fetched before the server is healthy.
HEALTHCHECK --interval=15s --timeout=5s --start-period=1h --start-interval=2s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && read -r answer <&3 && [[ $answer == *' 200 '* ]]"]
ENTRYPOINT ["tallow"]
CMD ["serve"]
