# The CPU image: builds from this tree alone, runs as a user without rights, and probes itself with its own binary.
#
#     docker build -t vecmill .
#     docker run -p 8000:8000 -v vecmill:/var/lib/vecmill -v ./keys.toml:/etc/vecmill/keys.toml:ro --stop-timeout 60 \
#         vecmill serve --model all-MiniLM-L6-v2 --keys /etc/vecmill/keys.toml
#
# Models come from the hub or lie in the volume already (see "Without a network" in the README); the image has no Python, so the Python
# package source is not available in it.
# Not built where it was written (no Docker daemon there): scripts/rehearse-docker runs the second stage step by step in a Debian root.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 vecmill && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/vecmill --shell /usr/sbin/nologin vecmill
RUN install -d -o vecmill -g vecmill /var/lib/vecmill /var/lib/vecmill/cache /var/lib/vecmill/data
COPY --from=build /src/target/release/vecmill /usr/local/bin/vecmill
COPY LICENSE /usr/share/doc/vecmill/LICENSE
ENV HOME=/var/lib/vecmill
ENV VECMILL_CACHE_DIR=/var/lib/vecmill/cache
ENV VECMILL_DATA_DIR=/var/lib/vecmill/data
ENV VECMILL_HOST=0.0.0.0
ENV VECMILL_LOG_FORMAT=json
USER 10001:10001
VOLUME /var/lib/vecmill
EXPOSE 8000
# Loading a model may take minutes; until then the container is starting, not unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 CMD ["vecmill", "health"]
ENTRYPOINT ["vecmill"]
CMD ["serve"]
