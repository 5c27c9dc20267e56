"""The shop's front: `uvicorn workers.front:front`."""

import gc

from workers.app import resilience

# isort: split
# Behind the app: the tasks that this imports belong to the app that was made last.
from jobs.web import create_front

front = create_front(resilience)

# What is there now stays: the collector need not look through it, 0.1 s long, amid requests.
gc.collect()
gc.freeze()
