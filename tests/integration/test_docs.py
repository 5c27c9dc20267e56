"""The pages in `docs/`: their Python code runs as it stands, and does what it says."""

import ast
import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.semconv._incubating.attributes import feature_flag_attributes as semconv
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import resilience
from resilience import (
    Dependency,
    Feature,
    Level,
    Outcome,
    Resilience,
    ResilientTask,
    Settings,
    TimeoutBudget,
)
from resilience.ledger import Ledger, State
from resilience.tasks.envelope import Deadline, deadline_of
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.replicated import Note, running_stage

DOCS = Path(__file__).parents[2] / "docs"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Alone(Celery):
    """An app that does not share the tasks that a page declares with every other app here."""

    def task(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as Celery's
        """Declare a task of this app only."""
        return super().task(*args, **{**options, "shared": False})


def nothing(_: object) -> None:
    """Be published only."""


@pytest.fixture
def app(broker: Broker, valkey: ValkeyProcess) -> Iterator[Celery]:
    """An adopted app with the tasks that the pages do not declare themselves, and no worker."""
    made = Alone("docs", broker=broker.url, set_as_current=False)
    settings = Settings(store_url=valkey.url, namespace=uuid4().hex, store_timeout_seconds=10)
    Resilience(made, dependencies=[Dependency("payments")], settings=settings)
    made.conf.task_default_queue = "others"
    for name in ("reserve", "ship", "mail"):
        made.task(name=name, base=ResilientTask)(nothing)
    yield made
    made.resilience.store.client.close()  # type: ignore[attr-defined]
    made.close()


def run_page(name: str, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - what the page uses
    """Run all Python code of a page, in order, and return the names that it leaves."""
    found = PYTHON.findall((DOCS / name).read_text())
    assert found, f"{name} shows no code"
    public = {name: getattr(resilience, name) for name in resilience.__all__}
    names: dict[str, Any] = {"__name__": "docs", "asyncio": asyncio, **public, **given}
    for code in found:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        awaiting = eval(compile(code, name, "exec", flags=flags), names)  # noqa: S307 - our own
        if inspect.iscoroutine(awaiting):
            asyncio.run(awaiting)
    return names


async def fetch(what: object) -> object:
    """Return *what*."""
    return what


def published(broker: Broker, queue: str) -> list[tuple[str, Deadline | None]]:
    """Return which tasks were published to *queue*, with which deadlines, in order."""
    return [(one["task"], deadline_of(one)) for one in broker.headers(queue)]


def test_breaker_page_runs(app: Celery) -> None:
    """Every way to guard a call that the page shows is one."""
    called: list[int] = []

    names = run_page(
        "breaker.md",
        app=app,
        order_id=7,
        charge_now=called.append,
        charge_async=fetch,
    )

    assert called == [7]
    assert names["breaker"].refusal() is None


def test_check_page_runs(app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
    """A start-up check prints what it finds."""
    run_page("check.md", app=app)
    assert "worker-without-queue" in capsys.readouterr().out


def test_bulkhead_page_runs(app: Celery) -> None:
    """The calls that the page shows are made."""
    called: list[int] = []

    run_page("bulkhead.md", app=app, order_id=7, charge_now=called.append, charge_async=fetch)

    assert called == [7]


def test_routing_page_runs(broker: Broker, valkey: ValkeyProcess) -> None:
    """What a front publishes by name goes where the page says."""
    names = run_page(
        "routing.md",
        Celery=Celery,
        BROKER_URL=broker.url,
        SETTINGS=Settings(store_url=valkey.url, store_timeout_seconds=10),
    )

    queues = ("payments", "payments.critical", "mail")
    found = [task for queue in queues for task, _ in published(broker, queue)]
    names["front"].resilience.store.client.close()
    names["front"].close()
    assert found == [
        f"shop.{name}" for name in ("payments.charge", "payments.capture", "mail.receipt")
    ]


def test_budget_page_runs(app: Celery, broker: Broker) -> None:
    """Shares, defaults and deadlines are as the page says."""

    def get_recommendations(_: object) -> None:
        raise ConnectionError

    names = run_page(
        "budget.md",
        app=app,
        chain=chain,
        user_id=7,
        get_user=int,
        get_recommendations=get_recommendations,
        get_notifications=str,
        fetch_user=fetch,
        fetch_recommendations=fetch,
        **{name: app.tasks[name] for name in ("reserve", "ship", "mail")},
    )

    outcome = names["outcome"]
    assert isinstance(outcome, Outcome)
    assert outcome.value == {"user": 7, "recs": [], "notes": "7"}
    assert outcome.reason == "ConnectionError"
    assert (names["user"], names["recs"]) == (7, 7)

    with TimeoutBudget(2.0):
        names["charge"](7)
    (first, starting), (second, inherited) = published(broker, "payments")
    assert (first, second) == ("docs.charge", "docs.charge")
    assert starting is not None
    assert starting.at - starting.sent == pytest.approx(2.0)
    assert inherited is not None
    assert 0 < inherited.at - inherited.sent <= 2.0
    (reserved, none), (shipped, also), (mailed, opted_out) = published(broker, "others")
    assert (reserved, shipped, mailed) == ("reserve", "ship", "mail")
    assert none is None
    assert also is not None
    assert 0 < also.at - also.sent <= 2.0
    assert opted_out is None


def test_admission_page_runs(app: Celery, broker: Broker) -> None:
    """Each job is in the queue of its lane, and the class's own is the default."""
    run_page("admission.md", app=app, order_id=7)

    for lane in ("critical", "sheddable"):
        assert [task for task, _ in published(broker, f"payments.{lane}")] == ["docs.charge"]


class Base(DeclarativeBase):
    """What the page's transaction is about."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


def test_ledger_page_runs(broker: Broker, valkey: ValkeyProcess, tmp_path: Path) -> None:
    """One job is at the broker, one waits for its time, one for the relay since the commit."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    made = Alone("docs-ledger", broker=broker.url, set_as_current=False)
    settings = Settings(store_url=valkey.url, namespace=uuid4().hex, ledger_url=url)
    Resilience(made, dependencies=[Dependency("notifications")], settings=settings)
    ledger: Ledger = made.resilience.ledger  # type: ignore[attr-defined]
    ledger.upgrade()
    engine = create_engine(url)
    Base.metadata.create_all(engine)

    run_page("ledger.md", app=made, engine=engine, order=Order(id=9), send_mail=nothing)

    assert published(broker, "notifications") == [("shop.notify", None)]
    kept = {one.state: one.jobs for one in ledger.counts()}
    assert kept == {State.OUTBOX: 1, State.SCHEDULED: 1}
    engine.dispose()
    ledger.close()
    made.close()


def test_holding_page_runs(app: Celery) -> None:
    """An order is in force until it is released."""
    run_page("holding.md", app=app)

    assert not app.resilience.holds.all()  # type: ignore[attr-defined]


def test_consistency_page_runs(app: Celery) -> None:
    """On a real primary and its replica; each read shows what the page says."""
    rows: dict[str, Any] = {}
    source = SimpleNamespace(read=rows.get, write=rows.__setitem__, delete=rows.pop)
    with running_stage() as stage:
        names = run_page(
            "consistency.md",
            app=app,
            resilience=app.resilience,  # type: ignore[attr-defined]
            PRIMARY_URL=stage.primary_url,
            REPLICA_URL=stage.replicas[0].url,
            Note=Note,
            select=select,
            SECRET="x" * 16,
            front=nothing,
            flask_app=nothing,
            primary=source,
            replica=source,
        )
        names["databases"].close()

    assert names["body"] == "mine"
    assert names["level"] is Level.FULL
    own = Outcome(value={"items": 3}, source="own write", dependency="carts")
    assert names["cart"] == own


def test_adopting_page_runs() -> None:
    """What the app sets itself holds, and the other options of its broker stay safe."""
    names = run_page("adopting.md", Celery=Alone)

    conf = names["app"].conf
    assert (conf.task_acks_late, conf.worker_prefetch_multiplier) == (False, 4)
    assert conf.broker_transport_options["visibility_timeout"] == 60
    assert conf.broker_transport_options["socket_timeout"] == 1.0
    names["app"].close()


def test_brokers_page_runs() -> None:
    """The app connects to nothing, and its dependency has a quorum queue."""
    names = run_page("brokers.md", Celery=Alone)

    made = names["app"]
    queue = made.amqp.queues["payments"]
    assert queue.queue_arguments["x-queue-type"] == "quorum"
    assert made.conf.broker_transport_options["confirm_publish"] is True
    made.close()


def test_openfeature_page_runs(broker: Broker, valkey: ValkeyProcess) -> None:
    """A shed feature is answered as the page says, and its telemetry has the names of semconv."""
    settings = Settings(store_url=valkey.url, namespace=uuid4().hex, store_timeout_seconds=10)
    asking, following = (Alone(f"docs-{n}", broker=broker.url, set_as_current=False) for n in "ab")
    feature = Feature("search.ai_ranking", level=Level.REDUCED)
    flags = Resilience(asking, dependencies=[], features=[feature], settings=settings).flags
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESILIENCE_STORE_URL", valkey.url)
        patch.setenv("RESILIENCE_NAMESPACE", settings.namespace or "")
        names = run_page("openfeature.md", app=asking, another_app=following)
    try:
        assert (names["details"].reason, names["status"]["enabled"]) == ("STATIC", True)
        leading: Resilience = names["resilience"]
        assert leading.intent is not None
        leading.intent.look(leading.flags, leading.announce)  # as the worker that leads does
        wait_until(lambda: not flags.enabled("search.ai_ranking"), 2, "the order is heard")
        asked = {"flag_key": "search.ai_ranking", "default_value": True}
        events = spans_of(lambda: names["client"].get_boolean_value(**asked))
        context = EvaluationContext("user-7")
        events += spans_of(lambda: names["client"].get_string_value("serach", "x", context))
    finally:
        api.shutdown()
        for made in (asking, following):
            made.resilience.store.client.close()  # type: ignore[attr-defined]
            made.close()
    assert [event.name for event in events] == ["feature_flag.evaluation"] * 2
    assert dict(events[0].attributes or {}) == {
        semconv.FEATURE_FLAG_KEY: "search.ai_ranking",
        semconv.FEATURE_FLAG_PROVIDER_NAME: "celery-resilience",
        semconv.FEATURE_FLAG_RESULT_VALUE: False,
        semconv.FEATURE_FLAG_RESULT_VARIANT: "off",
        semconv.FEATURE_FLAG_RESULT_REASON: "order",
        semconv.FEATURE_FLAG_VERSION: str(flags.version),
        semconv.FEATURE_FLAG_SET_ID: flags.set_id,
    }
    assert dict(events[1].attributes or {}) == {
        semconv.FEATURE_FLAG_KEY: "serach",
        semconv.FEATURE_FLAG_PROVIDER_NAME: "celery-resilience",
        semconv.FEATURE_FLAG_RESULT_REASON: "error",
        semconv.FEATURE_FLAG_CONTEXT_ID: "user-7",
        ERROR_TYPE: "flag_not_found",
    }


def spans_of(call: Callable[[], object]) -> list[Event]:
    """Return the events of the span that is current during *call*."""
    with TracerProvider().get_tracer("docs").start_as_current_span("request") as span:
        call()
    assert isinstance(span, ReadableSpan)
    return list(span.events)


def test_errors_page_runs() -> None:
    """A task that must answer whatever happens does."""
    names = run_page("errors.md", Celery=Alone)

    assert names["catalogue"].bugs[0] is LookupError
    names["app"].close()


def test_proxy_page_runs(valkey: ValkeyProcess) -> None:
    """A client behind the proxy times out while there is latency, and works again without."""
    names = run_page("proxy.md", cache_address=f"127.0.0.1:{valkey.port}")

    names["cache"].close()


def test_drills_page_runs() -> None:
    """The task that the page declares is drilled."""
    app = Alone("docs", broker="memory://", set_as_current=False)
    Resilience(app, dependencies=[Dependency("recommendations")], settings=Settings(store_url=""))
    names = run_page("drills.md", app=app)

    chain = names["recommend"].fallbacks
    assert (len(chain), chain.drill_share) == (2, 0.001)
    app.close()


def test_telemetry_page_runs() -> None:
    """An app takes all listeners, and the one that the page writes hears."""
    alone = functools.partial(Celery, set_as_current=False)
    names = run_page("telemetry.md", Celery=alone)

    assert len(Resilience.of(names["app"]).listeners) == 4
    names["page_somebody"](resilience.events.StoreFound())
