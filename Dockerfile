# syntax=docker/dockerfile:1
# Two stages: the first builds a virtual environment, the second holds that and nothing else.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/alt-runner
COPY pyproject.toml constraints.txt README.md ./
COPY generated generated
COPY runner runner
RUN /opt/alt-runner/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/alt-runner runner
COPY --from=build /opt/alt-runner /opt/alt-runner
ENV PATH=/opt/alt-runner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RUNNER_PROFILE=prod \
    RUNNER_DATA_DIR=/var/lib/alt-runner \
    RUNNER_GRPC__HOST=0.0.0.0 \
    RUNNER_HTTP__HOST=0.0.0.0
USER runner
WORKDIR /var/lib/alt-runner
VOLUME /var/lib/alt-runner
EXPOSE 50051 8080
# Ready means: jobs are taken, the ledger can be written, the claim loop moves, the disk has room.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
# SIGTERM drains: running tasks get their grace time, the rest is given back.
STOPSIGNAL SIGTERM
ENTRYPOINT ["alt-runner"]
CMD ["serve"]
