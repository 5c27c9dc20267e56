"""Settings of the project; those of Celery begin with CELERY_."""

from datetime import timedelta

SECRET_KEY = "only for this test"  # noqa: S105 - it protects nothing
INSTALLED_APPS = ["clinic"]
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CELERY_BROKER_URL = "redis://127.0.0.1:9/0"
CELERY_RESULT_BACKEND = "redis://127.0.0.1:9/1"
CELERY_TASK_ROUTES = {"clinic.tasks.remind": {"priority": 3}}
CELERY_TASK_TIME_LIMIT = 60
CELERY_BEAT_SCHEDULE = {
    "sync": {
        "task": "clinic.tasks.sync",
        "schedule": timedelta(minutes=5),
        "options": {"expires": 240, "budget": 20.0},
    }
}
