"""Tasks of Celery's own get values from resilient ones; the level travels beside them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.settings import Settings
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.compatibility.apps.answers import BARE_QUEUES, EVENTS, QUEUES, make_app
from tests.integration.apps.stage import new_key

APP_PATH = "tests.compatibility.apps.answers"
SECONDS = 120.0


class Stage:
    """The app after adoption and before, as clients see them; each has a worker."""

    def __init__(self, app: Celery[Any], bare: Celery[Any]) -> None:
        self.app, self.bare = app, bare
        self.client: Any = app.backend.client  # type: ignore[attr-defined] # that of Redis

    def noted(self, key: str) -> Any:  # noqa: ANN401 - any JSON
        """Wait until something is noted under *key*, and return it."""
        what = f"something is noted under {key}"
        return json.loads(wait_until(lambda: self.client.lindex(key, 0), SECONDS, what))

    def passed(self, task: str, job: str) -> list[dict[str, Any]]:
        """Return the events that say that *task* was given the value of a degraded answer."""
        said = [json.loads(text) for text in self.client.lrange(EVENTS, 0, -1)]
        return [
            event
            for event in said
            if event["name"] == "DegradedValuePassed"
            and (event["task"], event["id"]) == (task, job)
        ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the adopted app in apps/answers.py, and one of the same app not adopted."""
    with running_valkey(tmp_path_factory) as server, running_broker(tmp_path_factory) as broker:
        env = {
            "ANSWERS_BROKER": broker.url,
            "ANSWERS_BACKEND": server.url,
            "RESILIENCE_STORE_URL": server.url,
        }
        settings = Settings(store_url=server.url)
        where = {"broker": broker.url, "backend": server.url, "settings": settings}
        apps = make_app(**where), make_app(**where, adopted=False)
        bare = {**env, "ANSWERS_ADOPTED": "no"}
        with (
            run_worker(APP_PATH, queues=QUEUES, env=env) as worker,
            run_worker(APP_PATH, queues=BARE_QUEUES, env=bare, concurrency=1) as other,
        ):
            try:
                yield Stage(*apps)
            finally:
                for app in apps:  # a result that goes later must not ask a server that is gone
                    app.backend.remove_pending_result = lambda _: None  # type: ignore[attr-defined]
                worker.kill()
                other.kill()
                for app in apps:
                    app.close()


def s(app: Celery[Any], name: str, *args: object) -> Any:  # noqa: ANN401 - a signature
    """Return the signature of the task called *name*."""
    return app.tasks[name].s(*args)


def value_of(canvas: Any) -> Any:  # noqa: ANN401 - whatever it returns
    """Run *canvas* and return its value."""
    return canvas.apply_async().get(timeout=SECONDS)


CANVASES = {
    "chain": (lambda do: chain(do.price, do("add", 2)), lambda price: price + 2),
    "two plain": (
        lambda do: chain(do.price, do("add", 2), do("add", 3)),
        lambda price: price + 5,
    ),
    "chord": (lambda do: chord([do.price, do.price], do("total")), lambda price: 2 * price),
    "group, then plain": (
        lambda do: chain(group(do.price, do.price), do("total"), do("add", 1)),
        lambda price: 2 * price + 1,
    ),
    "plain group": (
        lambda do: chain(do.price, group(do("add", 1), do("add", 2)), do("total")),
        lambda price: 2 * price + 3,
    ),
    "chord of chains": (
        lambda do: chord([chain(do.price, do("add", 1)), do.price], do("total")),
        lambda price: 2 * price + 1,
    ),
    "chord of plain ends": (
        lambda do: chord(
            [chain(do.price, do("add", 1)), do("add", 1, 1).set(countdown=1)], do("total")
        ),
        lambda price: price + 3,
    ),
    "map": (
        lambda do: chain(do.price.type.map([do.item] * 2), do("total")),
        lambda price: 2 * price,
    ),
    "starmap": (
        lambda do: chain(do.price.type.starmap([(do.item,)] * 2), do("total")),
        lambda price: 2 * price,
    ),
    "replaced by plain": (
        lambda do: chain(do.price, do("swap_plainly", "echo"), do("add", 1)),
        lambda price: price + 1,
    ),
    "by name": (
        lambda do: chain(
            do.price, do.app.signature("only_there", (2,), queue="bare"), do("add", 1)
        ),
        lambda price: price + 3,
    ),
}
"""What plain tasks make of a price, in every way in which one is handed to them."""


class Do:
    """Makes signatures of one app for one item."""

    def __init__(self, app: Celery[Any], item: str) -> None:
        self.app, self.item = app, item
        self.price = self("price", item)

    def __call__(self, name: str, *args: object) -> Any:  # noqa: ANN401 - a signature
        """Return the signature of the task called *name*."""
        return s(self.app, name, *args)


@pytest.mark.parametrize("kind", CANVASES)
def test_plain_task_gets_the_value(stage: Stage, kind: str) -> None:
    """A canvas has the value that it had before adoption; in an outage, that of the fallback."""
    canvas, expected = CANVASES[kind]

    assert value_of(canvas(Do(stage.bare, "up"))) == expected(5)  # type: ignore[no-untyped-call]
    assert value_of(canvas(Do(stage.app, "up"))) == expected(5)  # type: ignore[no-untyped-call]
    assert value_of(canvas(Do(stage.app, "down"))) == expected(-1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        *[pytest.param("down", kind, id=f"down-{kind}") for kind in CANVASES],
        pytest.param("up", "chain", id="up-chain"),
        pytest.param("up", "chord of chains", id="up-chord of chains"),
    ],
)
def test_level_arrives_in_a_later_resilient_task(stage: Stage, kind: str, item: str) -> None:
    """Plain tasks in between do not hide it, whoever runs them; without an outage it is FULL."""
    canvas, expected = CANVASES[kind]
    judge = s(stage.app, "judge").set(queue="upstream")  # a worker that is not adopted routes none
    line = canvas(Do(stage.app, item)) | judge  # type: ignore[no-untyped-call]

    outcome = value_of(line)

    assert isinstance(outcome, Outcome)
    if item == "up":
        assert (outcome.value, outcome.level) == (expected(5), Level.FULL)
    else:
        assert (outcome.value, outcome.level) == (expected(-1), Level.STATIC)
        assert (outcome.reason, outcome.source) == ("ConnectionError", "static")
        assert outcome.dependency == "upstream"


def test_callbacks_get_the_value(stage: Stage) -> None:
    """As `link`, once or several times, plain and resilient ones."""
    one, two = new_key(), new_key()
    sig = s(stage.app, "price", "down")
    sig.link(s(stage.app, "note", one))
    sig.link(chain(s(stage.app, "echo"), s(stage.app, "note", two)))

    assert value_of(sig).level is Level.STATIC

    assert stage.noted(one) == stage.noted(two) == -1


def test_errback_of_a_plain_successor_is_called_as_before(stage: Stage) -> None:
    """`link_error` tells the error of the plain task, which was given the value."""
    for app in (stage.bare, stage.app):
        key = new_key()
        line = chain(s(app, "price", "up"), s(app, "explode"))
        line.link_error(s(app, "note_error", key))
        with pytest.raises(RuntimeError, match=r"^5$"):
            value_of(line)

        assert stage.noted(key) == ["explode", "5"]


def test_plain_task_can_see_the_level_in_the_message(stage: Stage) -> None:
    """The header says what the outcome said; an event names the job that was given the value."""
    result = chain(s(stage.app, "price", "down"), s(stage.app, "header")).apply_async()

    value, said = result.get(timeout=SECONDS)

    assert value == -1
    wanted = {"level": 3, "reason": "ConnectionError", "source": "static", "dependency": "upstream"}
    assert said == wanted
    (event,) = stage.passed("header", result.id)
    assert {name: event[name] for name in wanted} == wanted
    assert result.parent.get(timeout=SECONDS).level is Level.STATIC, "a caller sees the outcome"


def test_nothing_is_announced_when_all_is_well(stage: Stage) -> None:
    """A full answer passes in silence."""
    result = chain(s(stage.app, "price", "up"), s(stage.app, "header")).apply_async()

    assert result.get(timeout=SECONDS) == [5, {"level": 0, "dependency": "upstream"}]
    assert stage.passed("header", result.id) == []


def test_outcome_that_is_given_by_hand_is_a_value_for_the_task(stage: Stage) -> None:
    """Whoever passes one on by hand, in a list or by name, has not to unwrap it."""
    old = Outcome(value=4, level=Level.STALE, age=3.0)

    assert s(stage.app, "add", old, 1).apply_async().get(timeout=SECONDS) == 5
    assert s(stage.app, "total", [old, old]).apply_async().get(timeout=SECONDS) == 8
    by_name = stage.app.tasks["judge"].apply_async(kwargs={"value": old}).get(timeout=SECONDS)
    assert (by_name.value, by_name.level, by_name.age) == (4, Level.STALE, 3.0)


def test_immutable_task_ends_the_line(stage: Stage) -> None:
    """What was not made from the degraded answer is not called degraded."""
    app = stage.app
    line = chain(s(app, "price", "down"), app.tasks["add"].si(1, 2), s(app, "judge"))

    assert value_of(line) == 3


def test_retried_task_keeps_the_level(stage: Stage) -> None:
    """The next attempt of a resilient task in the line knows it as well."""
    outcome = value_of(chain(s(stage.app, "price", "down"), s(stage.app, "retry_once", new_key())))

    assert (outcome.value, outcome.level) == (-1, Level.STATIC)


@pytest.mark.parametrize("always", [True, False])
def test_eager_plain_task_gets_the_value(stage: Stage, always: bool) -> None:  # noqa: FBT001
    """Tests of an app that run eagerly see what its workers do."""
    app = stage.app
    line = chain(s(app, "price", "down"), s(app, "add", 2))
    app.conf.task_always_eager = always
    try:
        result = line.apply_async() if always else line.apply()
        assert result.get() == 1
    finally:
        app.conf.task_always_eager = False
