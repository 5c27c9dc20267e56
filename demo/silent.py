"""The shop's front, silenced: `uvicorn demo.silent:front`."""

from demo.sabotage import SilentFront
from workers.front import front as honest

front = SilentFront(honest)
