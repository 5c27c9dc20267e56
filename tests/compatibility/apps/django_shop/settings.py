"""The least that a Django project with a database sets."""

import os

DATABASE_PATH = os.environ.get("DJANGO_DATABASE", "")  # noqa: TID251 - as settings of Django do
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE_PATH}}
USE_TZ = True
