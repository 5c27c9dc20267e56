"""The app of positions.py for workers."""

from tests.integration.apps.positions import from_environment

app = from_environment()
