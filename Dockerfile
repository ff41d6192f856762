# One image for all services: what a container runs is its command.
#
#     docker build -t alphapulse .
#     docker run --rm --network host --shm-size 512m alphapulse alphapulse demo
#
# With a network of its own it has to listen on 0.0.0.0, as compose.yaml shows.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE CHANGELOG.md ./
COPY alphapulse alphapulse
RUN python -m venv /opt/alphapulse \
    && /opt/alphapulse/bin/pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 alphapulse \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin alphapulse \
    && install -d -o alphapulse -g alphapulse -m 0750 /var/lib/alphapulse
COPY --from=build /opt/alphapulse /opt/alphapulse
# Containers that share rings share /dev/shm, and so the metrics, too.
ENV PATH=/opt/alphapulse/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PROMETHEUS_MULTIPROC_DIR=/dev/shm/alphapulse-metrics \
    ALPHAPULSE__STORE__PATH=/var/lib/alphapulse/alphapulse.duckdb
USER alphapulse
WORKDIR /var/lib/alphapulse
VOLUME /var/lib/alphapulse
EXPOSE 3001 8765
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3001/health/live', timeout=4)"]
CMD ["alphapulse", "up"]
