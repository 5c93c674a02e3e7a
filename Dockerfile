# Two stages: the first has compilers and pip's caches, the second what runs.
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/ecs-worker \
 && /opt/ecs-worker/bin/pip install --no-cache-dir --constraint constraints.txt . \
 && /opt/ecs-worker/bin/pip uninstall --yes pip

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/ecs-worker --create-home ecs-worker
COPY --from=build /opt/ecs-worker /opt/ecs-worker
ENV PATH=/opt/ecs-worker/bin:$PATH PYTHONUNBUFFERED=1
USER ecs-worker
WORKDIR /var/lib/ecs-worker
EXPOSE 8080 8081
# Ready means: broker, journal and identity are there, and requests are consumed.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; \
    r.urlopen(f\"http://127.0.0.1:{os.environ.get('ECS_HTTP_PORT') or 8080}/readyz\", timeout=2)"]
# The worker drains for at most 25 s after SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ecs-worker"]
CMD ["run"]
