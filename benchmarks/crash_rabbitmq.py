"""The benchmark of killed workers on RabbitMQ alone."""

from benchmarks.crash import on_rabbitmq as run

__all__ = ["run"]
