"""What cannot work is refused where it is written, with an error that says why."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from resilience import ConfigurationError
from resilience.consistency import ConsistentSession, in_session
from resilience.databases import Databases
from resilience.pulse import Pulse
from tests.replicated import Note, Stage, write


def test_sqlite_has_no_positions(tmp_path: Path, stage: Stage) -> None:
    """Sessions on it work; whoever asks for positions or replicas is told why not."""
    url = f"sqlite:///{tmp_path / 'one.db'}"
    alone = stage.databases(primary=url, replicas=[])
    with alone.primary.engine(asynchronous=False).begin() as connection:
        Note.metadata.create_all(connection)
    with in_session(ConsistentSession()):
        note = write(alone, "local")
        with alone.Session() as session:
            assert session.scalar(select(func.count()).select_from(Note)) == 1
            assert session.scalar(select(Note.body).where(Note.id == note)) == "local"

    with pytest.raises(ConfigurationError, match="sqlite has no positions"):
        alone.measure_primary()
    with pytest.raises(ConfigurationError, match="sqlite has no positions"):
        stage.databases(primary=url, replicas=[url])


def test_driver_that_is_not_for_asyncio_is_a_mistake_and_no_outage(stage: Stage) -> None:
    """The error names the driver, and no circuit opens."""
    databases = stage.databases(primary="mariadb+pymysql://nobody@127.0.0.1:1/none", replicas=[])

    async def run() -> None:
        async with databases.AsyncSession() as session:
            await session.execute(select(Note.id))

    with pytest.raises(ConfigurationError, match="pymysql"):
        asyncio.run(run())
    assert databases.primary.breaker.known_state == "closed"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("wait_seconds", -1),
        ("position_cache_seconds", float("nan")),
        ("max_lag_seconds", float("inf")),
        ("primary_fallback_share", 0),
        ("primary_fallback_share", 1.1),
    ],
)
def test_number_out_of_range_is_refused(stage: Stage, option: str, value: float) -> None:
    """The error names the option and the value."""
    with pytest.raises(ConfigurationError, match=rf"{option}.*{value}"):
        stage.databases(**{option: value})


def test_misspelt_using_is_refused(databases: Databases) -> None:
    """`using` is `primary` or nothing."""
    with pytest.raises(ConfigurationError, match="'primry'"):
        databases.Session(using="primry")
    with pytest.raises(ConfigurationError, match="'primry'"), databases.Session() as session:
        session.execute(select(Note.id), bind_arguments={"using": "primry"})


@pytest.mark.parametrize("keys", ["note:2", ["", "x"], ["x" * 151]])
def test_keys_that_are_no_list_of_names_are_refused(
    databases: Databases, keys: str | list[str]
) -> None:
    """One text would be read letter by letter."""
    with pytest.raises(ConfigurationError, match="keys must be a list of names"):
        databases.Session(keys=keys)
    with pytest.raises(ConfigurationError, match="keys must"), databases.Session() as session:
        session.execute(select(Note.id), bind_arguments={"keys": keys})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"wait_second": 3}, "wait_second"),
        ({"replicas": "postgresql://host/name"}, "replicas must be a list"),
        ({"name": "a/b"}, "'a/b'"),
        ({"name": ""}, "''"),
        ({"primary": "no address"}, "databases 'default', primary"),
        ({"replicas": ["postgresql+nothing://host/name"]}, "databases 'default', replica 1"),
    ],
)
def test_mistake_is_an_error_where_it_is_made(
    stage: Stage, options: dict[str, Any], text: str
) -> None:
    """It names the databases and what is wrong; a corrected call then works."""
    store = Pulse(None)
    with pytest.raises(ConfigurationError, match=text):
        Databases(**{"primary": stage.primary_url, "pulse": store, **options})
    Databases(primary=stage.primary_url, pulse=store)
