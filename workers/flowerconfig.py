"""Flower: `celery -A workers.app flower --conf=workers/flowerconfig.py`."""

address = "127.0.0.1"
max_tasks = 10_000
purge_offline_workers = 60
persistent = False
