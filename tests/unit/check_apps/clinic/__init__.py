"""A Django project as its authors would adopt it."""

from clinic.celery import app as celery_app

__all__ = ["celery_app"]
