"""Settings of the project; those of Celery begin with CELERY_."""

import os
from pathlib import Path

SECRET_KEY = "only for this example"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["orders"]
ROOT_URLCONF = "bookshop.urls"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", Path(__file__).parents[1] / "bookshop.sqlite3"),
        "OPTIONS": {"timeout": 10},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CELERY_BROKER_URL = os.environ["BROKER_URL"]
CELERY_RESULT_BACKEND = os.environ["BROKER_URL"]
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_BEAT_SCHEDULE = {"remind": {"task": "orders.tasks.remind", "schedule": 1.0}}

RECOMMENDATIONS_URL = os.environ["RECOMMENDATIONS_URL"]
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["MAIL_PORT"])
EMAIL_TIMEOUT = 30
