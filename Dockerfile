# Linted, not built where it was written.
FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src
RUN ["python", "-m", "venv", "/venv"]

# The lock alone first: this layer stays until a dependency changes.
COPY constraints.txt ./
RUN ["/venv/bin/pip", "install", "--require-hashes", "--requirement", "constraints.txt"]

COPY pyproject.toml README.md LICENSE ./
COPY webhooks/ webhooks/
COPY plans/ plans/
COPY metering/ metering/
RUN ["/venv/bin/pip", "install", "--no-deps", "--no-build-isolation", "."]
# An empty folder for the next stage: there it belongs to the service's user, and so does a new volume on it.
WORKDIR /data


FROM python:3.11-slim-bookworm

COPY --from=build /venv /venv
COPY --from=build --chown=10001:10001 /data /data

ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 DATA_DIR=/data
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8005
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["metering", "health"]
CMD ["metering", "serve", "--host", "0.0.0.0", "--port", "8005"]
