"""Metrics when sources are away, names are hostile, or the command cannot do what it is told."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from resilience import Dependency, FireAndForgetTask, Level, Resilience, Settings
from resilience.cli import resilience as command
from resilience.events import AnswerDegraded, Event, FanOutFinished, QueueHeld
from resilience.monitor.prometheus import PrometheusListener
from resilience.monitor.readings import Readings
from resilience.monitor.scrape import Scrape
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.ledger_jobs import job
from tests.integration.scraped import samples

SECONDS = 60.0
HOSTILE = 'a"b\\c\n<script>\x1b[2J' + "x" * 1_000_000


def nowhere(path: Path) -> Celery[Any]:
    """Return an app whose store, broker and ledger are away."""
    app: Celery[Any] = Celery(broker="redis://127.0.0.1:9/0", set_as_current=False)
    app.conf.update(broker_connection_timeout=0.2)
    Resilience(
        app,
        dependencies=[Dependency("users")],
        settings=Settings(
            store_url="redis://127.0.0.1:9/0", ledger_url=f"sqlite:///{path}/no/l.db"
        ),
        listeners=[PrometheusListener()],
    )

    @app.task(base=FireAndForgetTask, dependency="users", name="mail", shared=False)
    def mail() -> None:
        """Need the ledger."""

    return app


def shown_by(scrape: Scrape) -> str:
    """Return what *scrape* shows in the OpenMetrics format."""
    from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415 - untyped

    registry = CollectorRegistry()
    registry.register(scrape)
    show: Callable[[CollectorRegistry], bytes] = generate_latest
    return show(registry).decode()


def test_each_source_that_is_away_is_named(tmp_path: Path) -> None:
    """A scrape answers, and says what could not be asked."""
    scrape = Scrape(Resilience.of(nowhere(tmp_path)))
    scrape.start()
    assert scrape.ready.wait(SECONDS)
    found = samples(shown_by(scrape))

    assert {name: value for name, value in found.items() if name[0] == "resilience_up"} == {
        ("resilience_up", f"source={source}"): 0 for source in ("store", "broker", "ledger")
    }


def test_jobs_of_names_that_are_not_declared_are_added_up(tmp_path: Path) -> None:
    """Those of no dependency are apart; of several, the one that has waited longest counts.

    So are those in a state that only another version of the library knows.
    """
    app: Celery[Any] = Celery(broker="memory://", set_as_current=False)
    settings = Settings(ledger_url=f"sqlite:///{tmp_path}/ledger.db")
    adopted = Resilience(app, dependencies=[Dependency("users")], settings=settings)
    adopted.ledger.upgrade()
    names = {"gone-1": -500.0, "gone-2": -50.0, "": 0.0, "users": 0.0}
    for name, delay in names.items():
        adopted.ledger.add([job(f"of {name}", dependency=name)], delay_seconds=delay)
    for number in range(2):
        adopted.ledger.add([job(f"newer {number}", dependency="users")])
        with sqlite3.connect(tmp_path / "ledger.db") as database:  # as another version may write
            newer = "UPDATE resilience_jobs SET state = ? WHERE id = ?"
            database.execute(newer, (f"state {number}\n", f"newer {number}"))
    found = dict(Readings(adopted)._from_ledger())  # noqa: SLF001 - without threads

    jobs = {key[1:]: value for key, value in found.items() if key[0] == "ledger_jobs"}
    assert jobs == {
        ("other", "scheduled"): 2,
        ("", "scheduled"): 1,
        ("users", "scheduled"): 1,
        ("users", "other"): 2,
    }
    waited = {key[1:]: value for key, value in found.items() if key[0] == "ledger_overdue_seconds"}
    assert waited["other", "scheduled"] >= 500
    assert max(waited["", "scheduled"], waited["users", "scheduled"]) < 50


def test_queue_that_is_held_on_purpose_is_not_one_without_consumer(valkey: ValkeyProcess) -> None:
    """An alert on queues without a consumer is about those that somebody ought to serve."""
    app: Celery[Any] = Celery(broker="memory://", set_as_current=False)
    every = [Dependency("bank", on_open="hold"), *map(Dependency, ("users", "mail", "ads"))]
    settings = Settings(store_url=valkey.url, namespace="on-purpose")
    adopted = Resilience(app, dependencies=every, settings=settings)
    order: Any = {"seconds": 600.0, "actor": "ann", "reason": "test"}
    for name in ("bank", "users"):
        adopted.breaker(name).force_open(**order)  # type: ignore[union-attr] # it has one
    for name in ("mail", "ads.critical"):
        adopted.holds.hold(name, **order)

    def shown() -> set[str]:
        readings = Readings(adopted)
        list(readings._from_store())  # noqa: SLF001 - without threads
        return {one[1] for one, _ in readings._from_broker() if one[0] == "queue_consumers"}  # noqa: SLF001 - as above

    served = {*adopted.dependencies["users"].queues, *adopted.dependencies["ads"].queues, "celery"}
    assert shown() == served - {"ads.critical"}
    app.conf.worker_enable_remote_control = False
    assert shown() == set()


def events_of(listener: PrometheusListener) -> Callable[[Event], None]:
    """Return *listener*, which takes what another version of the library may announce."""
    return listener


def test_hostile_names_and_other_peoples_events_are_one_series(valkey: ValkeyProcess) -> None:
    """A label has a bounded number of values, whatever an event says."""
    listener = PrometheusListener()
    app: Celery[Any] = Celery(broker="memory://", set_as_current=False)
    settings = Settings(store_url=valkey.url, namespace="hostile")
    adopted = Resilience(
        app, dependencies=[Dependency("users")], settings=settings, listeners=[listener]
    )
    announce = events_of(listener)
    degraded = {"call": HOSTILE, "level": Level.STALE, "error": HOSTILE, "source": "s", "age": None}
    with TracerProvider().get_tracer("test").start_as_current_span("job") as span:
        for number in range(3):
            announce(
                AnswerDegraded(dependency=HOSTILE + str(number), reason=HOSTILE, **degraded)  # type: ignore[arg-type] # by name
            )
        announce(AnswerDegraded(dependency="users", reason="CircuitOpenError", **degraded))  # type: ignore[arg-type] # as above
    held = {"worker": None, "reason": "", "actor": "", "until": None}
    announce(QueueHeld(queue="users.retry", **held))  # type: ignore[arg-type] # as above
    announce(type(HOSTILE[:7], (Event,), {})())
    ended = {"id": "f", "level": Level.FAILED, "missing": (), "degraded": ()}
    for end in ("lost", HOSTILE):
        announce(FanOutFinished(ended=end, **ended))  # type: ignore[arg-type] # as above
    announce(AnswerDegraded(dependency="", reason="", **degraded))  # type: ignore[arg-type] # as above
    tally = listener._tally()  # noqa: SLF001 - at once, not within a second
    assert tally is not None
    tally.flush()
    scrape = Scrape(adopted)
    for ask in (scrape._readings._from_store,):  # noqa: SLF001 - without threads
        scrape._look("store", 1.0, ask, SimpleNamespace(note=lambda _: None))  # type: ignore[arg-type] # noqa: SLF001 - as above
    text = shown_by(scrape)
    found = samples(text)

    name = "resilience_degraded_answers_total"
    assert found[name, "dependency=other", "kind=error", "level=STALE"] == 3
    assert found[name, "dependency=users", "kind=CircuitOpenError", "level=STALE"] == 1
    assert found["resilience_events_total", "dependency=users", "event=QueueHeld"] == 1
    assert found["resilience_events_total", "dependency=", "event=other"] == 1
    assert found[name, "dependency=", "kind=error", "level=STALE"] == 1
    ends = {key[1]: value for key, value in found.items() if key[0] == "resilience_fanouts_total"}
    assert ends == {"ended=lost": 1, "ended=other": 1}
    assert len(text) < 100_000
    assert f'trace_id="{span.get_span_context().trace_id:032x}"' in text


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--port", "99999"], "99999"), (["--address", "203.0.113.7", "--port", "0"], "203.0.113.7")],
    ids=["port", "address"],
)
def test_address_that_cannot_be_served_is_one_line(
    words: list[str], said: str, tmp_path: Path
) -> None:
    """The command says which address, and how to choose another one."""
    context = CLIContext(nowhere(tmp_path), no_color=True, workdir=None)
    done = CliRunner().invoke(command, ["metrics", *words], obj=context)

    assert done.exit_code > 0
    assert said in done.output
    assert "Traceback" not in done.output


def test_command_without_prometheus_client_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line names the extra."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    context = CLIContext(nowhere(tmp_path), no_color=True, workdir=None)
    done = CliRunner().invoke(command, ["metrics"], obj=context)

    assert done.exit_code == 2
    assert "celery-resilience[prometheus]" in done.output
