"""The Degradation page with a real worker: what it shows, and what becomes of orders."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from resilience.events import AnswerDegraded
from resilience.ledger import Which
from resilience.levels import Level
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.page_stage import (
    APP_PATH,
    HOSTILE,
    SECONDS,
    SECRET,
    Operator,
    Stage,
    running_flower,
    running_stage,
)

pytestmark = pytest.mark.redis_broker("one server is broker and store, and is stopped")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """Broker and store."""
    with running_valkey(tmp_path_factory) as valkey:
        yield valkey


@pytest.fixture(scope="module")
def stage(server: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The app, with a worker."""
    with (
        running_stage(server.url, server, tmp_path_factory.mktemp("page")) as made,
        ExitStack() as stack,
    ):
        worker = run_worker(APP_PATH, queues=made.shop.QUEUES, env=made.env)
        stack.enter_context(worker)
        yield made


@pytest.fixture(scope="module")
def flower(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its Flower, which knows two operators."""
    users = "--basic-auth=ann:a,bob:b"
    directory = tmp_path_factory.mktemp("flower")
    with running_flower(APP_PATH, stage.env, directory, users, users=True) as url:
        yield url


@pytest.fixture
def ann(stage: Stage, flower: str) -> Iterator[Operator]:
    """An operator; nothing is broken, ordered or dead when she comes."""
    stage.ask("DELETE FROM resilience_jobs")
    stage.valkey.client().delete(
        stage.shop.BROKEN, stage.shop.RAN, stage.adopted.store.key("holds")
    )
    operator = Operator(flower, auth=("ann", "a"))
    operator.await_look(
        "Flower knows the worker", lambda found: found["bulkheads"][0]["consumers"] == 1
    )
    yield operator
    operator.http.close()


@pytest.fixture
def bob(flower: str) -> Iterator[Operator]:
    """Another operator."""
    operator = Operator(flower, auth=("bob", "b"))
    yield operator
    operator.http.close()


def audit(stage: Stage) -> list[tuple[str, str, str]]:
    """Return action, actor and reason of all entries of the audit, oldest first."""
    entries = stage.ledger.letters.audit()
    return [(one.action, one.actor, one.reason) for one in reversed(entries)]


def await_cause(operator: Operator, jobs: int) -> dict[str, Any]:
    """Wait until the page shows one cause with so many letters; return its row."""

    def fits(found: dict[str, Any]) -> bool:
        return [one["letters"] for one in found["causes"]] == [jobs]

    row: dict[str, Any] = operator.await_look("the cause", fits)["causes"][0]
    return row


def test_second_of_two_operators_changes_nothing_and_is_told(
    stage: Stage, ann: Operator, bob: Operator
) -> None:
    """Each has the row as it was; the first order counts, of whatever kind; the audit knows it."""
    orders = [
        ("breakers", "ranking", "breaker open"),
        ("bulkheads", "mail", "hold"),
        ("flags", "search.spelling", "flag off"),
    ]
    for table, name, action in orders:
        seen = ann.row(table, name)["version"]
        first = ann.order(action, name=name, version=seen)
        assert first.status_code == 200, first.text
        late = bob.order(action, name=name, version=seen)
        assert late.status_code == 409, late.text
        assert "since" in late.json()["error"]
    shown = ann.await_look(
        "the circuit", lambda all_: all_["breakers"][0]["state"] == "forced_open"
    )
    assert [one["actor"] for one in shown["breakers"]] == ["ann"]
    assert ann.row("bulkheads", "mail")["held"]["actor"] == "ann"
    undone = [
        ("breakers", "ranking", "breaker reset"),
        ("bulkheads", "mail", "release"),
        ("flags", "search.spelling", "flag auto"),
    ]
    for table, name, action in undone:
        done = bob.order(action, name=name, version=bob.row(table, name)["version"], reason="over")
        assert done.status_code == 200, done.text
    assert audit(stage)[-4:] == [
        ("breaker open", "ann", "#471"),
        ("hold", "ann", "#471"),
        ("breaker reset", "bob", "over"),
        ("release", "bob", "over"),
    ]
    known = {("flag off", "ann"), ("flag auto", "bob"), ("hold", "ann"), ("CircuitForced", "bob")}
    ann.await_look(
        "the timeline",
        lambda found: known <= {(one["what"], one["actor"]) for one in found["timeline"]},
    )


def test_lane_that_is_held_is_released_with_its_dependency(
    stage: Stage, ann: Operator, bob: Operator
) -> None:
    """Its row shows who holds which lanes, and the order names the version of all of them."""
    lanes = {"mail.critical", "mail.sheddable"}
    for lane in lanes:
        stage.adopted.holds.hold(lane, seconds=60, actor="bob", reason="first")

    def held() -> set[str]:
        return {one["name"] for one in ann.row("bulkheads", "mail")["held_queues"]}

    wait_until(lambda: held() == lanes, SECONDS, "the page shows the lanes")
    row = ann.row("bulkheads", "mail")
    assert (row["held"], row["held_queues"][0]["actor"]) == (None, "bob")
    assert bob.order("release", name="mail", version=0).status_code == 409
    assert ann.order("release", name="mail", version=row["version"]).is_success
    assert stage.adopted.holds.all() == {}


def test_letters_that_somebody_has_replayed_are_left_alone(
    stage: Stage, ann: Operator, bob: Operator
) -> None:
    """Bob's row counts letters of which Ann has replayed one: nothing of his order happens."""
    names = stage.bury(3)
    cause = await_cause(ann, 3)
    assert (cause["letters"], cause["task"]) == (3, "shop.deliver")
    assert cause["last_error"] == "ConnectionError: refused"
    one = {"which": {"ids": [names[0]]}, "version": cause["newest"], "jobs": 1}
    assert ann.order("replay", **one).status_code == 200
    all_of_it = {"which": {"fingerprint": "refused"}, "version": cause["newest"], "jobs": 3}
    for action in ("replay", "discard"):
        late = bob.order(action, **all_of_it)
        assert late.status_code == 409
        assert "2 letters match now, not the 3" in late.json()["error"]
    assert ann.order("replay", **one).status_code == 409
    wait_until(stage.ran, SECONDS, "the letter has run")
    assert stage.ran() == {f"refused-0 {SECRET}": 1}
    assert len(stage.ledger.letters.find(Which(), limit=9)) == 2


def test_letter_that_died_after_the_operator_looked_is_not_swept_along(
    stage: Stage, ann: Operator
) -> None:
    """All of a cause are those that were seen."""
    stage.bury(2)
    found = ann.http.get("/degradation/letters", params={"fingerprint": "refused"}).json()
    stage.bury(1)
    which = {"which": {"fingerprint": "refused"}, "version": found["version"], "jobs": 2}
    done = ann.order("discard", **which)
    assert done.json() == {"done": "2 discarded"}
    assert len(stage.ledger.letters.find(Which(), limit=9)) == 1


def test_replay_stops_when_its_sample_dies_again(stage: Stage, ann: Operator) -> None:
    """The others stay dead, and the page says so; who and why is kept."""
    stage.valkey.client().set(stage.shop.BROKEN, "yes")
    stage.bury(9)
    cause = await_cause(ann, 9)
    order = {"which": {"fingerprint": "refused"}, "version": cause["newest"], "jobs": 9}
    assert ann.order("replay", **order).status_code == 200
    found = ann.await_look("the end", lambda found: found["replays"][0]["over"])["replays"][0]
    assert found["state"] == "stopped: the sample failed; 4 were not replayed"
    assert (found["replayed"], found["dead"], found["actor"]) == (5, 5, "ann")


def test_edited_letter_runs_with_what_was_hidden_in_it(stage: Stage, ann: Operator) -> None:
    """The operator sees no secret, changes something else, and the job still has it."""
    [name] = stage.bury(1)
    [shown] = ann.http.get("/degradation/letters").json()["letters"]
    assert SECRET not in json.dumps(shown)
    assert shown["kwargs"] == {"password": "***"}
    order = {"which": {"ids": [name]}, "version": shown["version"]}
    moved = {"args": ["***"], "kwargs": {"password": "***"}}
    refused = ann.order("edit", edited=moved, **order)
    assert (refused.status_code, "stands for" in refused.json()["error"]) == (400, True)
    done = ann.order("edit", edited={"args": ["corrected"], "kwargs": shown["kwargs"]}, **order)
    assert done.status_code == 200, done.text
    wait_until(stage.ran, SECONDS, "the letter has run")
    assert stage.ran() == {f"corrected {SECRET}": 1}
    assert audit(stage)[-1] == ("edit", "ann", "#471")


def test_what_others_wrote_is_shown_short_and_breaks_nothing(stage: Stage, ann: Operator) -> None:
    """Events, reasons and arguments of any kind leave page, task list and post-mortem as text."""
    stage.bury(1, cause="<b>&", key=HOSTILE * 100)
    row = ann.row("breakers", "ranking")
    assert ann.order(
        "breaker open", name="ranking", version=row["version"], reason="<b>\n|`x`"
    ).is_success
    with stage.shop.app.connection() as connection:
        dispatcher = stage.shop.app.events.Dispatcher(connection, hostname=HOSTILE[:60])
        for kind in ("task-degraded", "task-partial", "breaker-opened", "feature-shed"):
            fields: dict[str, Any] = {"level": 2, "name": HOSTILE, "reason": HOSTILE * 100}
            fields |= {"dependency": HOSTILE, "missing": [HOSTILE] * 50, "age": float("nan")}
            dispatcher.send(kind, uuid="<i>", **fields)
        dispatcher.send("task-degraded", uuid="<i>", level=["odd"], reason={"a": [1]})
    found = ann.await_look("all answers", lambda found: len(found["answers"]) >= 3)
    assert len(json.dumps(found)) < 200_000
    assert ann.http.get("/degradation/letters").json()["letters"][0]["editable"] is False
    text = ann.http.get("/degradation/post-mortem.md").text
    assert "<" not in text.replace("\\<", "")
    assert "# Post-mortem: \\<b\\>shop" in text
    assert "\\<b\\> \\|\\`x\\`" in text
    ann.order("breaker reset", name="ranking", version=ann.row("breakers", "ranking")["version"])
    stage.adopted.app.control.purge()


def test_tasks_show_how_good_their_answers_are(stage: Stage, ann: Operator) -> None:
    """A column of the task list and two fields of the task's page; the state stays SUCCESS."""
    event = AnswerDegraded(
        call="shop.rank",
        dependency="ranking",
        level=Level.STATIC,
        reason="CircuitOpenError",
        error="open <b>",
        source="static",
        age=None,
    )
    result = stage.shop.rank.delay()
    result.get(timeout=SECONDS)
    columns = {"draw": 1, "start": 0, "length": 1000, "order[0][column]": 0, "order[0][dir]": "asc"}

    def listed() -> list[Any]:
        answer = ann.http.get("/tasks/datatable", params={**columns, "columns[0][data]": "name"})
        return [one for one in answer.json()["data"] if one["uuid"] == result.id]

    wait_until(listed, SECONDS, "Flower lists the task")
    with stage.shop.app.connection() as connection:
        dispatcher = stage.shop.app.events.Dispatcher(connection, hostname="w@here")
        details = {**event.details(), "level": int(event.level)}
        dispatcher.send("task-degraded", uuid=result.id, name="shop.rank", **details)
    wait_until(lambda: listed()[0]["degradation"], SECONDS, "Flower has heard of it")
    [row] = listed()
    assert (row["degradation"], row["state"]) == ("STATIC: CircuitOpenError", "SUCCESS")
    assert ">Degradation<" in ann.http.get("/tasks").text
    page = ann.http.get(f"/task/{result.id}").text
    assert "source: static" in page
    assert "open &lt;b&gt;" in page
    assert ann.look()["answers"][0]["id"] == result.id


def test_queue_that_no_worker_serves_is_a_reason(stage: Stage, ann: Operator) -> None:
    """Flower knows which queues its workers consume: nobody is asked."""
    stage.shop.rank.apply_async(queue="ranking.sheddable", budget=60)
    found = ann.await_look(
        "the queue", lambda found: "ranking.sheddable" in str(found["reasons"] + found["notes"])
    )
    [row] = [one for one in found["reasons"] + found["notes"] if one["kind"] == "no_consumer"]
    assert "1 job" in row["why"]
    assert row["next"][-1] == f"celery -A {APP_PATH} resilience worker ranking"
    shown = ann.await_look("its age", lambda found: found["bulkheads"][0]["oldest"] is not None)
    assert shown["bulkheads"][0]["queues"]["ranking.sheddable"] == 1
    stage.valkey.client().delete("ranking.sheddable", "ranking.sheddable\x06\x166")
    ann.await_look("it is gone", lambda found: found["bulkheads"][0]["depth"] == 0)


def test_page_shows_the_rest_while_a_source_is_away_and_recovers(
    stage: Stage, ann: Operator, server: ValkeyProcess
) -> None:
    """Store and broker stop: both are named, the ledger's part stays; then all is back."""
    stage.bury(2)
    ann.await_look("the letters", lambda found: found["causes"])
    server.stop()
    away = ann.await_look("both are away", lambda found: {"store", "broker"} <= {*found["unknown"]})
    assert away["level"] is None
    assert away["causes"][0]["letters"] == 2
    refused = ann.order("hold", name="mail", version=0)
    assert refused.status_code == 503, refused.text
    server.start()
    back = ann.await_look("all is back", lambda found: not found["unknown"])
    assert back["breakers"][0]["dependency"] == "ranking"
    stage.ask("ALTER TABLE resilience_jobs RENAME TO elsewhere")
    try:
        away = ann.await_look("the ledger is away", lambda found: "ledger" in found["unknown"])
        assert away["breakers"][0]["state"] == "closed"
    finally:
        stage.ask("ALTER TABLE elsewhere RENAME TO resilience_jobs")
    ann.await_look("the ledger is back", lambda found: not found["unknown"])
