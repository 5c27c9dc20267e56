"""Every documented form of `apply_async` does for each task class what it does for Celery's own."""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Exchange, Queue

from resilience.errors import ConfigurationError
from resilience.ledger import State
from resilience.tasks import FanOut, part
from resilience.testing.process import ServerProcess, import_path
from tests.compatibility.apps.declared import DECLARED
from tests.compatibility.bench import APP_PATH, SECONDS, Bench, running_bench

NEVER_SECONDS = 3600.0
ANSWER = 7


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Servers, a worker of apps/publishing.py, and the app in this process."""
    with running_bench(tmp_path_factory) as bench:
        yield bench


def _naive() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)  # noqa: TID251 - as an app writes it


def _aware() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - as an app writes it


Options = Callable[[Bench], dict[str, Any]]


def _link(bench: Bench) -> Any:  # noqa: ANN401 - a signature
    return bench.app.tasks["plain_ignored"].si(uuid4().hex).set(ignore_result=True)


FORMS: dict[str, Options] = {
    "nothing": lambda _: {},
    "task_id": lambda _: {"task_id": uuid4().hex},
    "countdown": lambda _: {"countdown": 0.2},
    "countdown-zero": lambda _: {"countdown": 0},
    "countdown-past": lambda _: {"countdown": -5},
    "countdown-none": lambda _: {"countdown": None, "eta": None, "expires": None},
    "eta-naive": lambda _: {"eta": _naive() + timedelta(seconds=0.2)},
    "eta-naive-past": lambda _: {"eta": _naive() - timedelta(seconds=5)},
    "eta-aware": lambda _: {"eta": _aware() + timedelta(seconds=0.2)},
    "eta-text": lambda _: {"eta": (_aware() + timedelta(seconds=0.2)).isoformat()},
    "expires-number": lambda _: {"expires": 600},
    "expires-naive": lambda _: {"expires": _naive() + timedelta(seconds=600)},
    "expires-aware": lambda _: {"expires": _aware() + timedelta(seconds=600)},
    "expires-text": lambda _: {"expires": (_aware() + timedelta(seconds=600)).isoformat()},
    "shadow": lambda _: {"shadow": "another.name"},
    "connection": lambda b: {"connection": b.connection},
    "producer": lambda b: {"producer": b.producer},
    "publisher": lambda b: {"publisher": b.producer},
    "retry-no": lambda _: {"retry": False},
    "retry-yes": lambda _: {"retry": True},
    "retry_policy": lambda _: {"retry": True, "retry_policy": {"max_retries": 2}},
    "time_limit": lambda _: {"time_limit": 50},
    "soft_time_limit": lambda _: {"soft_time_limit": 40},
    "queue-name": lambda _: {"queue": "elsewhere"},
    "queue-object": lambda b: {"queue": b.app.amqp.queues["elsewhere"]},
    "queue-own-object": lambda _: {
        "queue": Queue("elsewhere", Exchange("elsewhere"), routing_key="elsewhere")
    },
    "exchange": lambda _: {"exchange": "elsewhere", "routing_key": "elsewhere"},
    "exchange-object": lambda _: {
        "exchange": Exchange("elsewhere"),
        "routing_key": "elsewhere",
    },
    "routing_key": lambda _: {"queue": "elsewhere", "routing_key": "elsewhere"},
    "router": lambda b: {"router": _Elsewhere(b.app)},
    "priority": lambda _: {"priority": 6},
    "serializer": lambda _: {"serializer": "json"},
    "compression": lambda _: {"compression": "zlib"},
    "delivery_mode": lambda _: {"delivery_mode": 1},
    "link": lambda b: {"link": _link(b)},
    "link-list": lambda b: {"link": [_link(b), _link(b)]},
    "link-none": lambda _: {"link": None, "link_error": None},
    "link_error": lambda b: {"link_error": _link(b)},
    "link_error-list": lambda b: {"link_error": [_link(b), _link(b)]},
    "add_to_parent": lambda _: {"add_to_parent": False},
    "ignore_result": lambda _: {"ignore_result": True},
    "ignore_result-no": lambda _: {"ignore_result": False},
    "headers": lambda _: {"headers": {"x-mine": [1, {"two": 3}]}},
    "headers-none": lambda _: {"headers": None},
    "stamped_headers": lambda _: {"stamped_headers": ["tenant"], "tenant": "shop"},
    "reply_to": lambda _: {"reply_to": "somebody"},
    "properties": lambda _: {"app_id": "web", "message_id": "m-1", "type": "t"},
    "argsrepr": lambda _: {"argsrepr": "(hidden)"},
    "kwargsrepr": lambda _: {"kwargsrepr": "{hidden}"},
    "root_id": lambda _: {"root_id": "r"},
    "parent_id": lambda _: {"parent_id": "p"},
    "kwargs": lambda _: {"kwargs": {}},
    "route_name": lambda _: {"route_name": "another"},
    "expiration": lambda _: {"expiration": 600},
    "mandatory": lambda _: {"mandatory": True},
    "immediate": lambda _: {"immediate": False},
    "retries": lambda _: {"retries": 2},
    "timeout": lambda _: {"timeout": 5.0},
    "confirm_timeout": lambda _: {"confirm_timeout": 5.0},
    "declare": lambda b: {"declare": [b.app.amqp.queues["elsewhere"]], "queue": "elsewhere"},
    "exchange_type": lambda _: {"exchange_type": "direct"},
}


PART_FORMS = [form for form in FORMS if form != "kwargs"]
"""A signature has its arguments already."""


class _Elsewhere:
    """A router, as Celery takes it."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - Celery's
        self._app = app

    def route(self, options: dict[str, Any], *_: object) -> dict[str, Any]:
        """Send everything to one queue."""
        return {**options, "queue": self._app.amqp.queues["elsewhere"]}


RESILIENT = ("resilient", "bare", "chained")
"""With a dependency, without one, and with fallbacks: what publishes them is the same."""
ALWAYS = (("plain", False), ("plain_ignored", False), ("fire", False), ("fire", True))

Facts = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(1, id="one class for each form"),
        pytest.param(len(RESILIENT), id="all classes for each form", marks=pytest.mark.long),
    ],
)
def classes(request: pytest.FixtureRequest) -> int:
    """How many of the resilient classes each form is given to; they take turns."""
    count: int = request.param
    return count


def in_turn(names: Sequence[str], number: int, count: int) -> list[str]:
    """Return so many of *names*, others for the next *number*."""
    return [names[(number + one) % len(names)] for one in range(count)]


@pytest.fixture(scope="module")
def facts(bench: Bench, classes: int) -> Facts:
    """Publish all forms; return what says by form what the jobs of a task came with.

    All are published before the first is waited for, so that they do not wait one by one.
    """
    keys: dict[tuple[str, bool], dict[str, str]] = {}
    for number, (form, options) in enumerate(FORMS.items()):
        resilient = ((task, False) for task in in_turn(RESILIENT, number, classes))
        for task, kept in (*ALWAYS, *resilient):
            key = keys.setdefault((task, kept), {})[form] = uuid4().hex
            bench.publish(task, key, options(bench), kept=kept)

    @cache
    def found(task: str, *, kept: bool = False) -> dict[str, dict[str, Any]]:
        return {form: bench.facts(key) for form, key in keys[task, kept].items()}

    return found


@pytest.mark.parametrize("kept", [False, True], ids=["published", "kept"])
def test_fire_and_forget_job_comes_with_what_it_was_given(
    facts: Facts,
    kept: bool,  # noqa: FBT001 - pytest's
) -> None:
    """In every form, whether the broker takes it at once or the outbox keeps it first."""
    assert facts("fire", kept=kept) == facts("plain_ignored")


@pytest.mark.parametrize("task", RESILIENT)
def test_resilient_job_comes_with_what_it_was_given(facts: Facts, task: str) -> None:
    """In every form."""
    ours, plain = facts(task), facts("plain")

    assert ours == {form: plain[form] for form in ours}


def test_part_comes_with_what_it_was_given(bench: Bench, facts: Facts, classes: int) -> None:
    """Of either class; the fan-out itself says only that nobody waits for the part's result."""
    keys = {
        f"{form}-{task}": (uuid4().hex, form, task)
        for number, form in enumerate(PART_FORMS)
        for task in in_turn(("resilient", "fire"), number, min(classes, 2))
    }
    parts = {
        name: part(bench.app.tasks[task].s(key, ANSWER).set(**FORMS[form](bench)))
        for name, (key, form, task) in keys.items()
    }

    response = FanOut(**parts).apply_async(budget=SECONDS).get()

    assert response.data == dict.fromkeys(parts, ANSWER)
    plain = facts("plain_ignored")
    assert {name: bench.facts(key) for name, (key, *_) in keys.items()} == {
        name: plain[form] | {"ignored": True} for name, (_, form, _) in keys.items()
    }


@pytest.mark.parametrize("kept", [False, True], ids=["published", "kept"])
def test_what_the_task_declares_comes_along(bench: Bench, kept: bool) -> None:  # noqa: FBT001 - pytest's
    """`expires` and time limits of the class hold in the outbox as well."""
    plain, ours = uuid4().hex, uuid4().hex
    bench.publish("plain_limited", plain, {})
    bench.publish("fire_limited", ours, {}, kept=kept)

    assert bench.facts(ours) == bench.facts(plain)


def test_job_of_beat_comes_with_the_options_of_its_entry(bench: Bench, tmp_path: Path) -> None:
    """A scheduled fire-and-forget job runs at each tick, as a plain one beside it."""
    command = [sys.executable, "-m", "celery", "-A", APP_PATH, "beat", "-s", str(tmp_path / "beat")]
    env = {**bench.env, "PYTHONPATH": import_path(), "BEAT_KEY": uuid4().hex}
    beat = ServerProcess(
        [*command, "-l", "INFO"], ready="Starting...", log_path=tmp_path / "beat.log", env=env
    )
    beat.start()
    try:
        plain, fired, again = (
            bench.facts(f"{env['BEAT_KEY']}:{task}", tick)
            for task, tick in (("plain_ignored", 0), ("fire", 0), ("fire", 1))
        )
    finally:
        beat.stop()

    assert fired == again == plain


@pytest.mark.parametrize("option", ["link", "link_error"])
def test_what_follows_a_kept_job_runs_once(bench: Bench, option: str) -> None:
    """A single signature, not in a list, as most apps write it."""
    task = "fire" if option == "link" else "fire_buggy"
    key = uuid4().hex
    follower = bench.app.tasks["plain_ignored"].si(f"{key}:after")

    bench.publish(task, key, {option: follower}, kept=True)

    assert bench.facts(f"{key}:after")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"exchange": "nowhere", "routing_key": "x"}, "add one to task_queues"),
        ({"kwargs": {"unknown": 1}}, "unexpected keyword argument"),
        ({"countdown": "soon"}, "could not convert"),
    ],
    ids=["exchange", "arguments", "countdown"],
)
def test_job_that_can_never_run_is_refused_where_it_is_published(
    bench: Bench, options: dict[str, Any], error: str
) -> None:
    """Also while the broker is away: the outbox keeps nothing that its relay cannot publish."""
    before = bench.known()

    with pytest.raises((ConfigurationError, TypeError, ValueError), match=error):
        bench.publish("fire", uuid4().hex, options, kept=True)

    assert bench.known() <= before  # others may end meanwhile


def test_committed_job_waits_for_its_time(bench: Bench) -> None:
    """`publish_with` takes `countdown` and `eta` as `apply_async` does."""
    key = uuid4().hex
    with bench.ledger._database.writing() as connection:  # noqa: SLF001 - the ledger's own database
        bench.app.tasks["fire"].publish_with(connection, (key, ANSWER), countdown=NEVER_SECONDS)
        bench.app.tasks["fire"].publish_with(connection, (f"{key}:now", ANSWER), eta=_naive())

    assert bench.facts(f"{key}:now")["value"] == repr(ANSWER)
    [waiting] = [one for one in bench.ledger.counts() if one.state is State.SCHEDULED]
    assert waiting.overdue_seconds is not None
    assert waiting.overdue_seconds < 0


@pytest.mark.parametrize("task", ["plain", "resilient", "bare", "chained", "fire"])
@pytest.mark.parametrize(
    "options",
    [{"result_cls": object}, {"task_type": object}, {"content_type": "application/json"}],
    ids=["result_cls", "task_type", "content_type"],
)
def test_option_that_celery_refuses_is_refused(
    bench: Bench, task: str, options: dict[str, Any]
) -> None:
    """With the same kind of error, and nothing is kept."""
    before = bench.known()

    with pytest.raises((TypeError, AttributeError)):
        bench.publish(task, uuid4().hex, options)

    assert bench.known() <= before  # others may end meanwhile


@pytest.mark.parametrize("task", ["resilient_declared", "fire_declared"])
def test_worker_sees_the_attributes_that_a_task_declares(bench: Bench, task: str) -> None:
    """Every attribute of Celery's `Task` that a class can set."""
    plain, ours = uuid4().hex, uuid4().hex
    bench.publish("plain_declared", plain, {})
    bench.publish(task, ours, {})

    assert bench.facts(ours) == bench.facts(plain)
    assert bench.facts(ours)["max_retries"] == repr(DECLARED["max_retries"])
