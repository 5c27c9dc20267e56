"""`resilience.check()`: every rule finds its mistake, and nothing else."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue
from pydantic import ValidationError

import resilience
from resilience import (
    BreakerPolicy,
    Dependency,
    FanOut,
    FireAndForgetTask,
    Resilience,
    ResilientTask,
    RetryPolicy,
    Settings,
    fallback,
    part,
)
from resilience.monitor.checking.answers import answers_of
from resilience.testing.process import inherited_env
from tests.unit.test_shop_settings import ADDRESSES

REDIS = "redis://127.0.0.1:9/0"
APPS = Path(__file__).parent / "check_apps"
ROOT = Path(__file__).parents[2]
BANK = Dependency("bank")

Declare = Callable[[Celery], object]


def fetch(service: str, path: str) -> str:
    """Return what a service answers."""
    return service + path


def from_bank(account: int) -> str:
    """Ask the bank in another way."""
    return fetch("bank", f"/cheap/{account}")


def deeper(account: int) -> str:
    """Ask the bank two functions further down."""
    return from_bank(account)


def made(
    declare: Declare,
    *dependencies: Dependency,
    adopt: bool = True,
    broker: str = REDIS,
    ledger: str = "sqlite:////var/lib/shop/ledger.sqlite3",
    **conf: Any,  # noqa: ANN401 - settings of Celery
) -> Celery:
    """Return an app with these dependencies, and the tasks that *declare* makes."""
    app = Celery("shop", broker=broker, backend=REDIS, set_as_current=False)
    app.conf.update(conf)
    if adopt:
        Resilience(app, dependencies=dependencies, settings=Settings(ledger_url=ledger))
    declare(app)
    return app


def charge(app: Celery, /, name: str = "charge", **options: Any) -> Any:  # noqa: ANN401 - a task
    """Declare a task that asks the bank."""
    given = {"base": ResilientTask, "dependency": "bank", "shared": False, **options}

    def run(account: int) -> str:
        return fetch("bank", f"/{account}")

    return app.task(name=name, **given)(run)


def waits_for_other(app: Celery) -> None:
    """Declare a task that is retried and waits for one that is."""
    retried = {"autoretry_for": (OSError,), "retry_backoff": True, "shared": False}
    inner = app.task(name="inner", **retried)(fetch)

    @app.task(name="outer", **retried)
    def outer() -> Any:  # noqa: ANN401 - whatever comes
        pending = inner.delay("bank", "/")
        return pending.get()


def calls_other(app: Celery) -> None:
    """Declare a task that is retried and calls one that is as a function."""
    retried = {"autoretry_for": (OSError,), "retry_backoff": True, "shared": False}
    inner = app.task(name="inner", **retried)(fetch)

    @app.task(name="outer", **retried)
    def outer() -> Any:  # noqa: ANN401 - whatever comes
        return [inner("bank", "/") for _ in range(3)]


def waits_for_parts(app: Celery) -> None:
    """Declare a task that is retried and waits for a fan-out whose part is."""
    retried = {"autoretry_for": (OSError,), "retry_backoff": True}
    wanted = FanOut(money=part(charge(app, "inner", **retried).s(7)))

    @app.task(name="outer", shared=False, **retried)
    def outer() -> Any:  # noqa: ANN401 - whatever comes
        return wanted.apply_async(budget=5).get()


def retries_by_hand(app: Celery) -> None:
    """Declare a task that says when it is tried again."""

    @app.task(name="charge", bind=True, shared=False)
    def run(self: Any, account: int) -> str:  # noqa: ANN401 - the task
        try:
            return fetch("bank", f"/{account}")
        except OSError as error:
            raise self.retry(exc=error, countdown=60, max_retries=2) from error


def through_pipeline(app: Celery) -> None:
    """Declare a task whose fallback calls the dependency through a pipeline."""
    adopted = Resilience.of(app)

    def cheaper(account: int) -> Any:  # noqa: ANN401 - an outcome
        return adopted.pipeline("bank", name="cheaper").call(fetch, "bank", f"/{account}")

    charge(app, fallbacks=[fallback.call(cheaper)])


def through_task(app: Celery) -> None:
    """Declare a task whose fallback is another one of the dependency."""
    charge(app, fallbacks=[fallback.call(charge(app, "cheaper"))])


NEVER = BreakerPolicy(failure_ratio=None, consecutive_failures=None, slow_seconds=9.0)
RARE = BreakerPolicy(consecutive_failures=None, minimum_calls=500)
PLANTED: dict[str, tuple[str, str, Declare, dict[str, Any]]] = {
    "no-limit": ("no-timeout", "task charge", charge, {"timeout": None}),
    "no-limit-on-threads": (
        "no-timeout",
        "task charge",
        lambda app: charge(app, time_limit=10),
        {"timeout": None, "pool": "threads"},
    ),
    "unguarded": ("no-timeout", "task charge", lambda app: charge(app, base=app.Task), {}),
    "unheard": ("no-answer", "task charge", lambda app: charge(app, ignore_result=True), {}),
    "ignores-all": (
        "breaker-never-trips",
        "Dependency('bank')",
        charge,
        {"breaker": BreakerPolicy(ignore=(Exception,))},
    ),
    "all-bugs": ("breaker-never-trips", "Dependency('bank')", charge, {"bugs": (Exception,)}),
    "never-slow": ("breaker-never-trips", "Dependency('bank')", charge, {"breaker": NEVER}),
    "too-few-slots": (
        "breaker-never-trips",
        "Dependency('bank')",
        charge,
        {"breaker": RARE, "slots": 3},
    ),
    "deadly-limit": ("over-budget", "task charge", lambda app: charge(app, time_limit=3), {}),
    "long-chain": (
        "over-budget",
        "task charge",
        lambda app: charge(app, soft_time_limit=9, fallbacks=[fallback.stale(max_age=60)]),
        {},
    ),
    "step-to-same": (
        "fallback-same-dependency",
        "task charge",
        lambda app: charge(app, fallbacks=[fallback.call(from_bank)]),
        {},
    ),
    "step-to-same-further-down": (
        "fallback-same-dependency",
        "task charge",
        lambda app: charge(app, fallbacks=[fallback.call(deeper)]),
        {},
    ),
    "step-through-pipeline": ("fallback-same-dependency", "task charge", through_pipeline, {}),
    "step-is-task": ("fallback-same-dependency", "task charge", through_task, {}),
    "no-jitter": (
        "lock-step-retries",
        "task charge",
        lambda app: charge(app, autoretry_for=(OSError,), retry_backoff=True, retry_jitter=False),
        {},
    ),
    "fixed-wait": (
        "lock-step-retries",
        "task charge",
        lambda app: charge(app, autoretry_for=(OSError,)),
        {},
    ),
    "parts": ("retry-amplification", "task outer", waits_for_parts, {}),
}
"""Rule, place, what makes the task, and the options of its dependency."""


def rules(app: Celery) -> list[tuple[str, str]]:
    """Return rules and places of what is found in *app* without asking anybody."""
    return [(one.rule, one.place) for one in resilience.check(app, probe=False)]


@pytest.mark.parametrize("variant", PLANTED)
def test_planted_mistake_is_found_and_nothing_else(variant: str) -> None:
    """One finding, of the right rule, at the right place."""
    rule, place, declare, options = PLANTED[variant]
    app = made(declare, Dependency("bank", **options))
    assert rules(app) == [(rule, place)]


@pytest.mark.parametrize("declare", [waits_for_other, calls_other])
def test_retried_task_that_awaits_a_retried_one_is_found(declare: Declare) -> None:
    """Each of its attempts is as many of the other: 16 calls for one job."""
    (one,) = resilience.check(made(declare), probe=False)
    assert (one.rule, one.place) == ("retry-amplification", "task outer")
    assert "16 calls" in one.message


def test_retries_by_hand_after_a_fixed_wait_are_in_lock_step() -> None:
    """`self.retry(countdown=60)` in the body counts as Celery's own retries do."""
    (one,) = resilience.check(made(retries_by_hand), probe=False)
    assert (one.rule, one.message.split()[0]) == ("lock-step-retries", "2")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"retry_kwargs": None}, "retry_kwargs"),
        ({"retry_kwargs": "twice"}, "retry_kwargs"),
        ({"retry_kwargs": [("max_retries", 2)]}, "retry_kwargs"),
        ({"retry_kwargs": {"max_retries": "3"}}, "max_retries"),
        ({"retry_kwargs": {"countdown": (1, 2)}}, "countdown"),
        ({"retry_kwargs": {"max_retries": float("nan")}}, "max_retries"),
        ({"max_retries": "3"}, "max_retries"),
        ({"default_retry_delay": "1m"}, "default_retry_delay"),
    ],
    ids=str,
)
def test_retry_that_celery_fails_at_is_found(options: dict[str, Any], name: str) -> None:
    """The check names task and value, and goes on with the other tasks."""
    value = options.get(name, options.get("retry_kwargs"))
    value = value.get(name) if isinstance(value, dict) else value

    def declare(app: Celery) -> None:
        charge(app, autoretry_for=(OSError,), retry_backoff=True, **options)
        charge(app, "lost", ignore_result=True)

    found = resilience.check(made(declare, BANK), probe=False)
    assert {(one.rule, one.place) for one in found} == {
        ("odd-retry", "task charge"),
        ("no-answer", "task lost"),
    }
    (odd,) = (one for one in found if one.rule == "odd-retry")
    assert odd.message.endswith(f"{name} is {value!r}")


def test_number_of_retries_that_is_none_is_found_in_the_body() -> None:
    """Celery fails at it when the job is retried; the task's own number counts in the table."""

    def declare(app: Celery) -> None:
        @app.task(name="charge", bind=True, shared=False, max_retries=4)
        def run(self: Any, account: int) -> str:  # noqa: ANN401 - the task
            try:
                return fetch("bank", f"/{account}")
            except OSError as error:
                raise self.retry(exc=error, countdown=0.5, max_retries="3") from error

    (found,) = (one for one in answers_of(made(declare), {}) if one.task.name == "charge")
    assert (found.attempts, found.waits, found.odd) == (5, 2.0, {"max_retries": "3"})


def test_visibility_timeout_below_the_heartbeat_is_found() -> None:
    """A worker beats once a second: it would count as dead while it connects again."""
    options = {"visibility_timeout": 1}
    app = made(charge, BANK, broker_transport_options=options)
    assert rules(app) == [("visibility-below-heartbeat", "setting broker_transport_options")]
    assert not rules(made(charge, BANK, broker_transport_options={"visibility_timeout": 5}))


@pytest.mark.parametrize("options", [{"time_limit": 7200}, {"autoretry_for": (OSError,)}])
def test_job_that_outlasts_the_visibility_timeout_is_found(options: dict[str, Any]) -> None:
    """Where no heartbeat renews what a worker holds: in an app that was not adopted."""

    def declare(app: Celery) -> None:
        app.task(name="long", acks_late=True, default_retry_delay=4000, shared=False, **options)(
            fetch
        )

    found = dict(rules(made(declare, adopt=False)))
    assert found["time-limit-over-visibility"] == "task long"
    assert "time-limit-over-visibility" not in dict(rules(made(declare)))


def test_budget_of_the_schedule_counts() -> None:
    """An entry of beat that gives a job less time than it may take is found."""
    entry = {"task": "charge", "schedule": 60.0, "options": {"budget": 5.0}}
    assert rules(made(charge, BANK, beat_schedule={"often": entry})) == [
        ("over-budget", "task charge")
    ]


def test_queue_that_no_worker_consumes_is_found() -> None:
    """By a route, or by the schedule; `up` starts no worker for it."""

    def declare(app: Celery) -> None:
        charge(app)
        app.task(name="rich", shared=False)(fetch)

    entry = {"task": "rich", "schedule": 60.0, "options": {"queue": "night"}}
    routes = {"rich": {"queue": "vip"}}
    assert rules(made(declare, BANK, task_routes=routes)) == [("queue-without-worker", "queue vip")]
    assert rules(made(declare, BANK, beat_schedule={"nightly": entry})) == [
        ("queue-without-worker", "queue night")
    ]


def test_worker_that_nothing_is_published_to_is_found() -> None:
    """A dependency that no task names; one whose tasks other processes have is none."""
    idle = Dependency("idle")
    remote = Dependency("remote", tasks=["billing.*"])
    assert rules(made(charge, BANK, idle, remote)) == [
        ("worker-without-queue", "Dependency('idle')")
    ]


def test_relative_ledger_is_found_if_a_task_needs_it() -> None:
    """Each directory would have a ledger of its own."""
    relative = "sqlite:///ledger.sqlite3"

    def keep(app: Celery) -> None:
        charge(app, base=FireAndForgetTask)

    assert rules(made(keep, BANK, ledger=relative)) == [
        ("relative-ledger", "setting RESILIENCE_LEDGER_URL")
    ]
    assert not rules(made(charge, BANK, ledger=relative))


@pytest.mark.parametrize(
    ("conf", "place"),
    [
        ({"task_queues": [Queue("celery", durable=False)]}, "queue celery"),
        ({"task_queues": [Queue("celery", Exchange("x", delivery_mode=1))]}, "queue celery"),
        ({"task_default_delivery_mode": "transient"}, "queue celery"),
    ],
)
def test_queue_that_does_not_outlive_rabbitmq_is_found(conf: dict[str, Any], place: str) -> None:
    """Not durable, or with messages that are transient."""
    found = rules(made(charge, BANK, broker="amqp://127.0.0.1:9//", **conf))
    assert ("message-not-durable", place) in found
    assert {rule for rule, _ in found} == {"message-not-durable"}
    assert not rules(made(charge, BANK, broker="amqp://127.0.0.1:9//"))


def from_elsewhere(account: int) -> str:
    """Answer from another service; log in the name of the bank, as the body does."""
    logging.getLogger("bank").info("not there")
    return fetch("archive", f"/{account}")


def logs_and_asks(app: Celery) -> None:
    """Declare a task that logs in the name of the bank, as its fallback does."""

    def run(account: int) -> str:
        logging.getLogger("bank").info("here")
        return fetch("bank", f"/{account}")

    given = {"base": ResilientTask, "dependency": "bank", "shared": False}
    app.task(name="charge", fallbacks=[fallback.call(from_elsewhere)], **given)(run)


def publishes_other(app: Celery) -> None:
    """Declare a task that is retried, publishes one that is, and gets something else."""
    retried = {"autoretry_for": (OSError,), "retry_backoff": True, "shared": False}
    inner = app.task(name="inner", **retried)(fetch)

    @app.task(name="outer", **retried)
    def outer(settings: dict[str, str]) -> str | None:
        logging.getLogger("bank").info("here")
        inner.delay("bank", "/")
        return settings.get("path")


ODD = BreakerPolicy(count=(ValidationError,), ignore=(OSError,), consecutive_failures=None)


@pytest.mark.parametrize(
    ("declare", "options"),
    [
        pytest.param(publishes_other, {"tasks": ["x"]}, id="published-only"),
        pytest.param(logs_and_asks, {}, id="step"),
        pytest.param(lambda app: charge(app, fallbacks=[fallback.call(str)]), {}, id="built-in"),
        pytest.param(lambda app: charge(app, fallbacks=[fallback.call(lambda _: "")]), {}, id="λ"),
        pytest.param(charge, {"breaker": None, "timeout": 60.0}, id="no-breaker"),
        pytest.param(charge, {"breaker": ODD, "timeout": 1.0}, id="odd-exception"),
        pytest.param(charge, {"breaker": RARE, "timeout": 0.05}, id="enough-calls"),
        pytest.param(lambda app: charge(app, max_retries=0, autoretry_for=(OSError,)), {}, id="0"),
        pytest.param(lambda app: charge(app, time_limit=30), {"timeout": None}, id="time-limit"),
    ],
)
def test_what_only_looks_like_a_mistake_is_none(declare: Declare, options: dict[str, Any]) -> None:
    """Each resembles one that is planted above."""
    assert not rules(made(declare, Dependency("bank", **options)))


def test_answer_that_may_be_lost_is_no_mistake() -> None:
    """A job that may expire, one that beat publishes again, and one that says what to do then."""

    class Own(ResilientTask):
        abstract = True

        def on_failure(self, *_: object, **__: object) -> None:
            """Tell somebody."""

    def declare(app: Celery) -> None:
        charge(app, "expires", ignore_result=True, expires=30)
        charge(app, "often", ignore_result=True)
        charge(app, "own", ignore_result=True, base=Own)

    often = {"often": {"task": "often", "schedule": 60.0}}
    assert not rules(made(declare, BANK, beat_schedule=often))


def test_app_that_ignores_results_altogether_gets_a_warning() -> None:
    """Its tasks may be parts of fan-outs, which are heard all the same."""
    (one,) = resilience.check(made(charge, BANK, task_ignore_result=True), probe=False)
    assert (one.rule, one.severity) == ("no-answer", "warning")


def test_table_says_what_happens_when_a_task_times_out() -> None:
    """The worst case has all attempts, the waits between them, and each step of the chain."""

    def declare(app: Celery) -> None:
        steps = [fallback.stale(max_age=60), fallback.static("")]
        charge(app, "chain", fallbacks=steps, idempotency_key="{account}")
        charge(app, "stale", fallbacks=steps[:1])
        charge(app, "kept", base=FireAndForgetTask)
        app.task(name="plain", shared=False)(fetch)

    policy = RetryPolicy(max_attempts=3, base_seconds=1.0, factor=2.0)
    app = made(declare, Dependency("bank", timeout=2.0, retry=policy))
    rows = {one.task.name: one.row() for one in answers_of(app, Resilience.of(app).dependencies)}
    assert rows["chain"]["worst_seconds"] == 6.0  # the call, a stale answer, another one's run
    assert rows["chain"]["chain"] == "stale (STALE) → static (STATIC)"
    assert rows["chain"]["then"] == "the chain answers"
    assert rows["stale"]["then"] == "the chain answers; else its caller gets the error"
    assert rows["kept"]["worst_seconds"] == 3 * 2.0 + 1.0 + 2.0
    assert rows["kept"]["then"] == "it is tried again; else an operator has the dead letter"
    assert rows["plain"] | {"then": ""} == {
        "task": "plain",
        "dependency": None,
        "timeout": None,
        "budget": None,
        "chain": None,
        "retry": None,
        "ledger": False,
        "idempotency": None,
        "worst_seconds": None,
        "then": "",
    }


def test_finding_names_value_place_and_mend() -> None:
    """And the file and line of the task."""
    (one,) = resilience.check(made(charge, Dependency("bank", timeout=None)), probe=False)
    assert "'bank'" in one.message
    assert "timeout is None" in one.message
    assert "timeout=5.0" in one.mend
    line = Path(one.file).read_text().splitlines()[one.line - 1]
    assert (one.file, line.strip()) == (__file__, "def run(account: int) -> str:")


@pytest.mark.parametrize(
    ("app", "directory"),
    [
        ("newsletter", APPS),
        ("clinic", APPS),
        ("workers.app", ROOT),
        ("make_celery", ROOT / "examples/flask/after"),
        ("bookshop", ROOT / "examples/django/after"),
        ("bookshop:app", ROOT / "examples/fastapi/after"),
    ],
)
def test_apps_of_other_people_give_no_false_alarm(app: str, directory: Path) -> None:
    """The shop, the examples, a plain app that was never adopted, and a Django project."""
    env = {f"SHOP_{name.upper()}": value for name, value in ADDRESSES.items()}
    env |= {"PYTHONPATH": f"{directory}:{ROOT}", "BROKER_URL": REDIS, "MAIL_PORT": "25"}
    env |= {"RECOMMENDATIONS_URL": "http://127.0.0.1:9"}
    env |= {"SHOP_DATABASE_URL": "sqlite:////tmp/shop.sqlite3"}
    env |= {"RESILIENCE_LEDGER_URL": "sqlite:////var/lib/shop/ledger.sqlite3"}
    done = run("-A", app, *CHECK, "--strict", env=env, directory=directory)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_command_without_an_app_asks_for_one(tmp_path: Path) -> None:
    """Celery then has an app of its own, without tasks: nothing is wrong with that one."""
    done = run(*CHECK, env={"PYTHONPATH": str(ROOT)}, directory=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "celery -A MODULE" in done.stderr


CHECK = ("resilience", "check", "--no-probe", "--format", "github")


def run(*words: str, env: dict[str, str], directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run `celery` with these words."""
    return subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", "celery", *words],
        env=inherited_env(env),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
