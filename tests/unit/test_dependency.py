"""Dependencies: what may be declared."""

from typing import Any

import pytest
from pydantic import ValidationError

from resilience import ConfigurationError, Dependency, TaskPattern
from resilience.dependency import Catalogue


def test_dependency_has_a_queue_of_its_own_name_by_default() -> None:
    """A bulkhead needs no more than a name."""
    assert Dependency("users").queue == "users"
    assert Dependency("users", queue="people").queue == "people"


@pytest.mark.parametrize("queue", ["Shop.Users", "users:high", "{users}", "v1/users", "u.fifo"])
def test_dependency_takes_a_queue_name_as_brokers_have_them(queue: str) -> None:
    """An existing queue can be a bulkhead's, also if its name is no dependency's name."""
    assert Dependency("users", queue=queue).queue == queue


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("concurrency", -1),
        ("concurrency", 1.5),
        ("concurrency", "many"),
        ("timeout", 0),
        ("timeout", -2.0),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("prefetch", 0),
        ("max_queue", 0),
        ("queue", ""),
        ("queue", " "),
        ("queue", "b,celery"),
        ("queue", "-Q"),
        ("queue", "users.critical"),
        ("queue", "a.retry"),
        ("pool", "eventlet"),
        ("consurrency", 3),
    ],
)
def test_dependency_names_an_option_or_value_that_cannot_be(option: str, value: object) -> None:
    """Nonsense and unknown options are refused where they are written, with the value."""
    options: dict[str, Any] = {option: value}

    with pytest.raises(ValidationError) as caught:
        Dependency("users", **options)

    assert option in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "Users", "users ", "users\n", "1users", "_users", "a.b", "a:b", "a{b", "u" * 65]
)
def test_dependency_refuses_a_name_that_is_not_plain(name: str) -> None:
    """Names become queues, key parts and process names, so they hold nothing special."""
    with pytest.raises(ValidationError):
        Dependency(name)


def test_dependency_refuses_the_name_of_the_default_worker() -> None:
    """What the command line could not start is refused where it is declared."""
    with pytest.raises(ValidationError, match=r"'default'.*choose another name"):
        Dependency("default")


@pytest.mark.parametrize("given", [{"args": ["Users"]}, {"kwargs": {"name": "Users"}}], ids=str)
def test_dependency_calls_its_name_by_name(given: dict[str, Any]) -> None:
    """A refused name is spoken of as `name`, also if it was given by position."""
    with pytest.raises(ValidationError) as caught:
        Dependency(*given.get("args", ()), **given.get("kwargs", {}))

    assert [error["loc"] for error in caught.value.errors()] == [("name",)]
    with pytest.raises(ValidationError, match="name"):
        Dependency("users", name="users")  # type: ignore[misc]  # what must not work


def test_dependency_cannot_be_changed() -> None:
    """What was checked at declaration stays so."""
    with pytest.raises(AttributeError):
        Dependency("users").timeout = -1.0  # type: ignore[misc]  # what must not work


def test_catalogue_keeps_the_order_of_declaration() -> None:
    """Dependencies are found by name and listed as declared."""
    users, payments = Dependency("users"), Dependency("payments")
    catalogue = Catalogue(iter([users, payments]))

    assert list(catalogue) == ["users", "payments"]
    assert len(catalogue) == 2
    assert catalogue["payments"] is payments
    assert catalogue.require("users", where="task x") is users


@pytest.mark.parametrize("thing", ["users", None, {"name": "users"}, Dependency], ids=repr)
def test_catalogue_names_what_is_no_dependency(thing: object) -> None:
    """A bare name, or anything else in the list, is refused with what should stand there."""
    with pytest.raises(ConfigurationError) as caught:
        Catalogue([Dependency("users"), thing])  # type: ignore[list-item]  # what must not work

    assert f"{thing!r} is no dependency" in str(caught.value)


@pytest.mark.parametrize("thing", [Dependency("users"), "users", None, 3], ids=repr)
def test_catalogue_says_that_it_takes_a_list(thing: object) -> None:
    """What stands in place of the list is refused as such, with what should stand there."""
    with pytest.raises(ConfigurationError, match=r"is no list; write \[Dependency\(name"):
        Catalogue(thing)  # type: ignore[arg-type]  # what must not work


def test_catalogue_names_a_duplicate() -> None:
    """Two dependencies of one name are refused with that name."""
    with pytest.raises(ConfigurationError, match="'users' is declared twice"):
        Catalogue([Dependency("users"), Dependency("payments"), Dependency("users", queue="q")])


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(Dependency("payments", queue="users"), id="another's-default"),
        pytest.param(Dependency("payments", queue="shared"), id="both-named"),
    ],
)
def test_catalogue_names_both_sides_of_a_queue_clash(second: Dependency) -> None:
    """Two bulkheads in one queue are refused with both names and the queue."""
    first = Dependency("users", queue=second.queue)

    with pytest.raises(ConfigurationError) as caught:
        Catalogue([first, second])

    for word in ("'users'", "'payments'", repr(second.queue)):
        assert word in str(caught.value)


def test_catalogue_names_an_unknown_dependency_and_the_known() -> None:
    """Asking for what was never declared says where, what, and what there is."""
    catalogue = Catalogue([Dependency("users"), Dependency("payments")])

    with pytest.raises(ConfigurationError) as caught:
        catalogue.require("user", where="task shop.profile")

    assert str(caught.value) == (
        "task shop.profile names the unknown dependency 'user'; "
        "did you mean 'users'? declared are: users, payments"
    )
    with pytest.raises(ConfigurationError, match=r"unknown dependency \['users'\]"):
        catalogue.require(["users"], where="task x")  # type: ignore[arg-type]  # as above
    with pytest.raises(ConfigurationError, match="declared are: none"):
        Catalogue([]).require("users", where="task x")


def test_dependency_without_a_breaker_cannot_hold_jobs() -> None:
    """What never opens never holds: the contradiction is refused where it is written."""
    with pytest.raises(ValidationError, match="needs a breaker"):
        Dependency("users", on_open="hold", breaker=None)
    with pytest.raises(ValidationError, match="on_open"):
        Dependency("users", on_open="wait")  # type: ignore[arg-type]


def names(*patterns: str, **others: list[str]) -> Catalogue:
    """Return payments with *patterns*, and *others*."""
    more = [Dependency(name, tasks=tasks) for name, tasks in others.items()]
    return Catalogue([Dependency("payments", tasks=patterns), *more])


@pytest.mark.parametrize(
    ("task", "owner"),
    [
        ("app.pay.charge", "payments"),
        ("app.pay.report", "reports"),
        ("app.pay.audit.day", "audit"),
        ("app.pay", None),
        ("app.other", None),
    ],
)
def test_name_of_a_task_leads_to_the_dependency_that_names_it_best(
    task: str, owner: str | None
) -> None:
    """A whole name decides before any pattern, a longer pattern before a shorter one."""
    catalogue = names("app.pay.*", audit=["app.pay.audit.*"], reports=["app.pay.report"])

    found = catalogue.pattern_of(task)

    assert (found[0].name if found else None) == owner


def test_string_is_a_pattern_with_its_defaults() -> None:
    """Who needs no option writes a name."""
    assert Dependency("mail", tasks=["app.mail"]).tasks == (TaskPattern("app.mail"),)
    assert not names().has_patterns


@pytest.mark.parametrize(
    "tasks", ["app.mail", [""], [3], [{"pattern": "a", "fire": True}], ["x" * 256]]
)
def test_pattern_that_cannot_be_is_refused(tasks: Any) -> None:  # noqa: ANN401 - what must not work
    """A name, or several, with known options."""
    with pytest.raises(ValidationError, match="tasks"):
        Dependency("mail", tasks=tasks)


def test_two_dependencies_cannot_name_the_same_tasks() -> None:
    """A task calls one dependency."""
    with pytest.raises(ConfigurationError, match=r"'payments' and 'mail' both name.*'app.pay'"):
        names("app.pay", mail=["app.pay"])
