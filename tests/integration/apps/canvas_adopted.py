"""The app that `Resilience` adopted."""

from tests.integration.apps.canvas import make_app

app = make_app(adopted=True)
