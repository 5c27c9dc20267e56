"""Flower: `celery -A workers.app flower --conf=workers/flowerconfig.py`."""

from resilience.monitor.flower import install

install()

address = "127.0.0.1"
max_tasks = 10_000
purge_offline_workers = 60
persistent = False
