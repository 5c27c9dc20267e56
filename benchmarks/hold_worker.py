"""What the workers of the benchmark of held jobs start with."""

from benchmarks.hold_app import make_app

app = make_app()
