"""Django loads this first, so that `@shared_task` finds the project's Celery app."""

from bookshop.celery import app as celery_app

__all__ = ["celery_app"]
