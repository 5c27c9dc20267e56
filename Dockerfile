# One image for every process of the shop; docker-compose.yml says which one it is.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1
WORKDIR /shop
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY resilience resilience
RUN pip install --no-cache-dir --constraint requirements.lock ".[shop,postgres]"
COPY jobs jobs
COPY workers workers

RUN useradd --system shop
USER shop
CMD ["uvicorn", "workers.front:front", "--host", "0.0.0.0", "--port", "8000"]
