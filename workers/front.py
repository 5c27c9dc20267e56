"""The shop's front: `uvicorn workers.front:front`."""

from workers.app import resilience

# isort: split
# Behind the app: the tasks that this imports belong to the app that was made last.
from jobs.web import create_front

front = create_front(resilience)
