"""The shop's front, which forgets who asks: `uvicorn demo.forgetful:front`."""

from demo.sabotage import ForgetfulFront
from workers.front import front as mindful

front = ForgetfulFront(mindful)
