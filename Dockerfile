# Two stages: the first has compilers and pip's caches, the second what runs.
ARG PYTHON=3.11-slim-bookworm
FROM python:${PYTHON} AS build
WORKDIR /source
COPY . .
# By hashes, and the wheel without looking for more. setuptools, which builds it, is among them.
RUN python -m venv /opt/ecs-worker \
 && /opt/ecs-worker/bin/pip install --no-cache-dir --require-hashes --requirement requirements.txt \
 && /opt/ecs-worker/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/ecs-worker/bin/pip uninstall --yes pip

FROM python:${PYTHON}
RUN useradd --system --uid 10001 --home-dir /var/lib/ecs-worker --create-home ecs-worker
COPY --from=build /opt/ecs-worker /opt/ecs-worker
ENV PATH=/opt/ecs-worker/bin:$PATH PYTHONUNBUFFERED=1
USER ecs-worker
WORKDIR /var/lib/ecs-worker
EXPOSE 8080 8081
# Alive, not ready: whoever restarts what is unhealthy must not restart workers because the broker is away, for which
# they wait. A container of the gateway has another one: --health-cmd "ecs-worker probe --gateway".
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["ecs-worker", "probe", "live"]
# The worker ends within 34 s after SIGTERM, the gateway within 37 s: more than the 10 s that `docker stop` waits.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ecs-worker"]
CMD ["run"]
