"""What is started: the Celery app with its workers, the web front, Flower."""
