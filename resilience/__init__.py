"""Celery jobs that degrade gracefully."""
