"""The rights that SECURITY.md recommends: enough for all that the library does, and no more."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
from celery import chord, group

from resilience import FanOut, part
from resilience.ledger import Which
from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.conformance.store_servers import started, valkey_with
from tests.rights import acl_rules, refusals, restricted

APP_PATH = "tests.integration.apps.least_rights"
SECONDS = 60.0
ROOT = Path(__file__).parents[2]
CALL = re.compile(r"redis\.call\('([A-Z]+)'")
SENT = re.compile(r"\b(?:client|pipe)\.([a-z_]+)\(")
COMMANDS = {
    "client_id": "client|id",
    "client_list": "client|list",
    "delete": "del",
    "pipeline": "multi",
    "register_script": "evalsha",
}
"""Commands of methods that have another name."""
NO_COMMANDS = {"aclose", "client", "close", "execute", "execute_command", "get_boolean_details"}
WHO = ["--actor", "ann", "--reason", "#471"]
ORDERS = [
    ["status"],
    ["check"],
    ["breaker", "list"],
    ["breaker", "open", "bank", *WHO],
    ["breaker", "reset", "bank", *WHO],
    ["hold", "mail", *WHO],
    ["holds"],
    ["release", "mail", *WHO],
    ["flag", "off", "advice", *WHO],
    ["flag", "list"],
    ["flag", "auto", "advice", *WHO],
    ["fault", "list"],
    ["ledger", "status"],
    ["dead", "list"],
    ["topology"],
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server of the tests' own, with the three users."""
    with started(one := valkey_with(tmp_path_factory.mktemp("valkey"))):
        yield one


@pytest.fixture(scope="module")
def env(server: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the servers are, for processes that have no more than the rights."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    patient = {"RESILIENCE_STORE_TIMEOUT_SECONDS": "5", "RESILIENCE_PUBLISH_TIMEOUT_SECONDS": "5"}
    return {**restricted(server), **patient, "RESILIENCE_LEDGER_URL": f"sqlite:///{path}"}


@pytest.fixture(scope="module")
def shop(env: dict[str, str]) -> Iterator[ModuleType]:
    """The app in this process, a publisher."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop(APP_PATH, None)
        made = importlib.import_module(APP_PATH)
        yield made
        made.app.close()


def use(shop: ModuleType) -> None:
    """Publish each kind of job, and wait for what becomes of it."""
    app, tasks = shop.app, shop.app.tasks
    assert tasks["pay"].apply_async(("a",)).get(timeout=SECONDS).value == "a"
    assert tasks["pay"].apply_async(("a",)).get(timeout=SECONDS).value == "a"
    fan_out = FanOut(one=part(tasks["one"].s(1)), two=part(tasks["one"].s(2)))
    response = fan_out.apply_async(budget=SECONDS / 2, on_complete=tasks["note"].s()).get()
    assert response.data == {"one": 1, "two": 2}
    numbers = group(tasks["one"].s(number) for number in range(3))
    assert chord(numbers)(tasks["add"].s()).get(timeout=SECONDS) == 3
    assert tasks["one"].apply_async((7,), countdown=0.1).get(timeout=SECONDS) == 7
    tasks["send"].fire()
    tasks["send"].fire(fails=True)
    letters = app.resilience.ledger.letters
    wait_until(lambda: letters.find(Which(), limit=1), SECONDS, "there is a dead letter")
    wait_until(lambda: app.control.inspect(timeout=1).ping(), SECONDS, "the worker answers")
    tasks["one"].apply_async((1,), countdown=600).revoke()
    for number in range(6):  # the circuit opens, and fallbacks answer
        tasks["pay"].apply_async((f"b{number}",), {"fails": True}).get(timeout=SECONDS)
    app.resilience.breaker("bank").reset(actor="ann", reason="#471")


def test_rights_are_enough_for_workers_publishers_and_commands(
    server: ValkeyProcess, env: dict[str, str], shop: ModuleType
) -> None:
    """The server has refused nothing, but for what `check` says that it cannot tell."""
    server.client().execute_command("ACL", "LOG", "RESET")
    command = [sys.executable, "-m", "celery", "-A", APP_PATH, "resilience"]
    words: list[str]
    with run_worker(APP_PATH, queues=shop.QUEUES, env=env) as worker:
        use(shop)
        for words in ORDERS:
            done = subprocess.run(  # noqa: S603 - the project's own commands
                [*command, *words],
                env=inherited_env({**env, "PYTHONPATH": import_path()}),
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout + done.stderr
            assert "Traceback" not in said, said
            assert done.returncode in ({0, 1} if words[0] in {"status", "check"} else {0}), said
        worker.stop()
        assert "NOPERM" not in worker.log
        assert "StoreLost" not in worker.log

    assert [one for one in refusals(server) if "object=config|get" not in one] == []


def test_store_recovers_with_these_rights(server: ValkeyProcess, shop: ModuleType) -> None:
    """A loss ends when the server is back."""
    store = shop.app.resilience.store
    server.stop()
    assert shop.app.resilience.breaker("bank").state is not None
    server.start()
    restricted(server)
    key = store.key("probe")

    def answers() -> bool:
        try:
            return bool(store.run(lambda client: client.set(key, "1")))
        except Exception:  # noqa: BLE001 - whatever it is, it has not recovered
            return False

    wait_until(answers, SECONDS, "the store is used again")


def granted(user: str) -> set[str]:
    """Return the commands that *user* may run."""
    return {rule[1:] for rule in acl_rules()[user] if rule.startswith("+")}


@pytest.mark.parametrize(
    ("user", "folders"), [("shop-store", ["store"]), ("shop-broker", ["broker", "worker"])]
)
def test_rights_cover_every_command_of_every_script(user: str, folders: list[str]) -> None:
    """Also of those that only some features run."""
    files = [file for one in folders for file in (ROOT / "resilience" / one).glob("*.lua")]
    commands = {found.lower() for file in files for found in CALL.findall(file.read_text())}

    assert len(commands) > 10
    assert commands - granted(user) == set()


def test_rights_cover_every_command_that_python_code_sends() -> None:
    """Whatever client it is that sends it; what only tests, proofs and `store check` do aside."""
    files = [
        file
        for file in (ROOT / "resilience").rglob("*.py")
        if not {"testing", "chaos"} & {*file.parts} and file.name != "stored.py"
    ]
    found = {name for file in files for name in SENT.findall(file.read_text())}
    words = {COMMANDS.get(name, name) for name in found - NO_COMMANDS}

    assert len(words) > 20
    assert words - set.union(*map(granted, acl_rules())) == set()


@pytest.mark.parametrize("user", sorted(acl_rules()))
def test_what_is_not_needed_is_refused(env: dict[str, str], user: str) -> None:
    """No user sees the keys of others, empties the server or changes how it runs."""
    [url] = [one for one in env.values() if f"//{user}:" in one]
    refused: list[tuple[Any, ...]] = [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "WHOAMI"),
        ("MONITOR",),
        ("SHUTDOWN",),
        ("GET", "other-app"),
        ("SET", "other-app", "1"),
        ("PUBLISH", "other-app", "1"),
    ]
    with redis.Redis.from_url(url) as client:
        assert client.ping()
        for words in refused:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)
