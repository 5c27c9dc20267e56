"""The Degradation page of Flower, without a fork of it.

In `flowerconfig.py`:

    from resilience.monitor.flower import install

    install()

`celery -A app resilience flower` does the same.
"""


def install() -> None:
    """Give the Flower that this process is about to start its Degradation page; may be repeated."""
    import flower.command  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    import flower.events  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    from flower.views.tasks import TASK_COLUMNS  # type: ignore[import-untyped]  # noqa: PLC0415

    from resilience.monitor.flower.app import DegradationFlower  # noqa: PLC0415 - as above
    from resilience.monitor.flower.state import DegradationState  # noqa: PLC0415 - as above

    # Both are looked up when Flower starts, which is after its configuration was read.
    flower.command.Flower = DegradationFlower
    flower.events.EventsState = DegradationState
    TASK_COLUMNS["degradation"] = "Degradation"
