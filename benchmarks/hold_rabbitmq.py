"""The benchmark of held jobs on RabbitMQ alone."""

from benchmarks.hold import on_rabbitmq as run

__all__ = ["run"]
