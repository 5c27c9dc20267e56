# One image for every process of the shop; docker-compose.yml says which one it is.
FROM python:3.11-slim AS build

RUN python -m venv /venv
WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY resilience resilience
RUN /venv/bin/pip install --no-cache-dir --constraint requirements.lock ".[shop,postgres]" \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.11-slim

ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --no-create-home shop
COPY --from=build /venv /venv
WORKDIR /shop
COPY jobs jobs
COPY workers workers

# By number: Kubernetes cannot tell whether a name is root.
USER 10001
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["resilience-health"]
CMD ["celery", "-A", "workers.app", "resilience", "worker", "default"]
