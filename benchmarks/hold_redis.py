"""The benchmark of held jobs on Redis alone."""

from benchmarks.hold import on_redis as run

__all__ = ["run"]
