"""The app that only has our task class."""

from tests.integration.apps.canvas import make_app

app = make_app(adopted=False)
