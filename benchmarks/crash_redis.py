"""The benchmark of killed workers on Redis alone."""

from benchmarks.crash import on_redis as run

__all__ = ["run"]
