# One image for each service, and one (tools) with `dtolbus verify`, `runs`, `keys` and the rest:
#     docker build --target gateway --tag dtolbus-gateway .
# compose.yaml builds them all. Each holds what its service imports, and runs as the user dtolbus.

FROM python:3.11-slim AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/dtolbus \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml ./
COPY protocol protocol
COPY producer producer
COPY workers workers

FROM build AS build-producer
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --no-dev --no-editable --package dtolbus-producer

FROM build AS build-worker
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --no-dev --no-editable --package dtolbus-workers

FROM build AS build-worker-parquet
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --no-dev --no-editable --package dtolbus-workers --extra parquet

FROM build AS build-worker-postgres
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --no-dev --no-editable --package dtolbus-workers --extra postgres

FROM build AS build-tools
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --no-dev --no-editable --package dtolbus-producer \
 && uv sync --no-dev --no-editable --inexact --package dtolbus-workers --extra all

# Named volumes take over who owns these folders when they are first mounted.
FROM python:3.11-slim AS runtime
RUN groupadd --gid 10001 dtolbus \
 && useradd --uid 10001 --gid dtolbus --no-create-home --home-dir /nonexistent dtolbus \
 && install -d -o dtolbus -g dtolbus -m 0700 /data /data/keys \
 && install -d -o dtolbus -g dtolbus /secrets /sinks /sinks/parquet /sinks/sqlite /sinks/csv /sinks/jsonl /sinks/more
ENV PATH=/opt/dtolbus/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DTOLBUS_LOG_LEVEL=info \
    DTOLBUS_METRICS_PORT=5603
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS producer
COPY --from=build-producer /opt/dtolbus /opt/dtolbus
ENV DTOLBUS_DATA=/data DTOLBUS_CONFIG=/etc/dtolbus/dtolbus.toml
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s CMD ["dtolbus-producer", "health"]
ENTRYPOINT ["dtolbus-producer"]
CMD ["run"]

FROM runtime AS gateway
COPY --from=build-producer /opt/dtolbus /opt/dtolbus
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s CMD ["dtolbus-gateway", "health"]
ENTRYPOINT ["dtolbus-gateway"]
CMD ["serve", "/data"]

# A worker that is stopped together with the producer first stores what ended just now.
FROM runtime AS worker
ENV DTOLBUS_DRAIN=6

FROM worker AS worker-parquet
COPY --from=build-worker-parquet /opt/dtolbus /opt/dtolbus
ENV DTOLBUS_OUT=/sinks/parquet
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s CMD ["dtolbus-parquet", "health"]
ENTRYPOINT ["dtolbus-parquet"]

FROM worker AS worker-sqlite
COPY --from=build-worker /opt/dtolbus /opt/dtolbus
ENV DTOLBUS_OUT=/sinks/sqlite/dtolbus.sqlite
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s CMD ["dtolbus-sqlite", "health"]
ENTRYPOINT ["dtolbus-sqlite"]

FROM worker AS worker-postgres
COPY --from=build-worker-postgres /opt/dtolbus /opt/dtolbus
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s CMD ["dtolbus-postgres", "health"]
ENTRYPOINT ["dtolbus-postgres"]

# CSV and JSON lines: `docker run … dtolbus-worker-text dtolbus-csv --out /sinks/csv`, or dtolbus-jsonl.
FROM worker AS worker-text
COPY --from=build-worker /opt/dtolbus /opt/dtolbus
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s CMD ["dtolbus-csv", "health"]
CMD ["dtolbus-csv", "--out", "/sinks/csv"]

# Forwards the two ports of the gateway to the network of the lab.
FROM python:3.11-slim AS lan
# Debian's security updates take the place of a version, which its archive does not keep
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends haproxy \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
# not its soft stop, which waits for those who are connected
STOPSIGNAL SIGTERM
ENTRYPOINT ["haproxy", "-f", "/etc/dtolbus/lan.cfg"]

FROM runtime AS tools
COPY --from=build-tools /opt/dtolbus /opt/dtolbus
ENV DTOLBUS_DATA=/data
ENTRYPOINT ["dtolbus"]
CMD ["--help"]
