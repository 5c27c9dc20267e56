"""Values in a real store that no process of ours wrote: each counts as absent, and is put right."""

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner

from resilience import Resilience, StoreUnavailableError
from resilience.cli import resilience as command
from resilience.events import StoreFound, StoreLost, StoreValueUnreadable
from resilience.monitor.circuits import breaker_rows
from resilience.monitor.stored import KINDS, kind_of
from resilience.store import Store
from resilience.store.election import Election
from resilience.store.flags import FlagStore
from resilience.store.ledgers import Ledgers
from resilience.store.slots import SlotStore
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.property.stored_readers import WHO, Everything, samples

FAR = 9_999_999_999_999_999
ROOT = Path(__file__).parents[2]
NAMED = {"KEY": "flags", "FLAGS": "flags", "LEADER": "leader", "TOTALS": "totals"}
"""Constants that stand for a part of a key."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be stopped without disturbing other tests."""
    with running_valkey(tmp_path_factory) as running:
        yield running


@pytest.fixture
def fleet(server: ValkeyProcess) -> Everything:
    """One app in a new namespace, which has sent a pulse."""
    made = Everything(server.url)
    made.app.pulse.refresh()
    return made


def said(fleet: Everything) -> list[tuple[str, str]]:
    """Return keys and names of values that were announced as unreadable."""
    events = [one for one in fleet.events if isinstance(one, StoreValueUnreadable)]
    return [(one.key, one.name) for one in events]


def store_check(app: Resilience, *options: str) -> tuple[int, Any]:
    """Run `store check`; return its exit code and its rows."""
    context = CLIContext(app=app.app, no_color=True, workdir=None)
    done = CliRunner().invoke(command, ["store", "check", "--json", *options], obj=context)
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize(
    "text",
    [
        '1|2|[1,"forced_open","x","a","r"]',
        f'1|2|[0,"forced_open",{FAR},"a","r"]',
        f'1|{FAR}|[1,"",0,"",""]',
        f'{FAR}|{FAR}|[1,"",0,"",""]',
        '1|2|[-1,"",0,"",""]',
        "x",
    ],
)
def test_garbage_under_the_name_of_a_circuit_is_no_circuit(fleet: Everything, text: str) -> None:
    """It lets calls pass, is announced once, concerns no other circuit, and a reset replaces it."""
    breaker, store = fleet.breaker(), fleet.store
    store.client.hset(store.key("circuits"), "mail", text)
    for _ in range(3):
        fleet.app.pulse.refresh()
        assert breaker.call(int) == 0
    assert breaker.state == "closed"
    assert fleet.app.pulse.scope == "fleet"
    assert [row["unreadable"] for row in breaker_rows(fleet.app)] == [True, False]
    assert said(fleet) == [("circuits", "mail")]
    fleet.breaker("shop").force_open(seconds=60, **WHO)
    assert fleet.breaker("shop").state == "forced_open"

    breaker.force_open(seconds=60, **WHO)
    assert breaker.state == "forced_open"
    breaker.reset(**WHO)
    assert [row["unreadable"] for row in breaker_rows(fleet.app)] == [False, False]


def test_circuits_of_another_type_are_replaced_by_the_next_change(fleet: Everything) -> None:
    """Until then there are none; the fleet still agrees, on windows and on everything else."""
    store = fleet.store
    for name in ("circuits", "windows"):
        store.client.delete(store.key(name))
        store.client.set(store.key(name), "theirs")
    fleet.app.pulse.refresh()
    assert fleet.app.pulse.scope == "fleet"
    fleet.breaker().force_open(seconds=60, **WHO)
    fleet.app.pulse.refresh()
    assert fleet.breaker().state == "forced_open"
    assert fleet.app.pulse.scope == "fleet"
    assert ("circuits", "") in said(fleet)


@pytest.mark.parametrize(
    "text",
    [
        '{"name":["a"],"until":9e9,"actor":"a","reason":"r"}',
        '{"name":"shop","until":9e9,"actor":"a","reason":"r"}',
        '{"name":"mail","until":NaN,"actor":"a","reason":"r"}',
        "[]",
    ],
)
def test_garbage_among_the_holds_holds_nothing(fleet: Everything, text: str) -> None:
    """Other orders hold, `holds` lists them, and `release` clears the garbage away."""
    store, holds = fleet.store, fleet.app.holds
    holds.hold("shop", seconds=60, **WHO)
    store.client.hset(store.key("holds"), "mail", text)
    holds.look()
    now = fleet.app.pulse.refresh()
    assert holds.known("mail", now) is None
    assert holds.known("shop", now) is not None
    assert [*holds.all()] == ["shop"]
    assert said(fleet) == [("holds", "mail")]
    assert not holds.release("mail", **WHO)
    assert [*store.client.hkeys(store.key("holds"))] == [b"shop"]


def test_order_that_ends_in_centuries_holds_nothing(fleet: Everything) -> None:
    """No order is for longer than a year."""
    text = '{"name":"mail","until":1e11,"actor":"a","reason":"r"}'
    fleet.store.client.hset(fleet.store.key("holds"), "mail", text)
    fleet.app.holds.look()
    now = fleet.app.pulse.refresh()
    assert fleet.app.holds.known("mail", now) is None
    assert not fleet.app.holds.in_force(now)
    assert not fleet.app.holds.all()


def test_garbage_among_the_features_leaves_the_others(fleet: Everything) -> None:
    """An entry that cannot be read is none; the next order writes the document without it."""
    flags, store = fleet.app.flags, fleet.store
    flags.order("other", "off", seconds=60, **WHO)
    version, _, body = store.client.get(store.key("flags")).partition(b"|")
    document = json.loads(body)
    document["orders"]["extras"] = {"state": "off", "until": 1e300, **WHO, "version": 1, "at": 0}
    document["switched"]["extras"] = "never"
    store.client.set(
        store.key("flags"), b"%d|" % (int(version) + 5) + json.dumps(document).encode()
    )
    fleet.app.pulse.refresh()
    assert not flags.enabled("other")
    assert flags.enabled("extras")
    assert {*said(fleet)} == {("flags", "orders.extras"), ("flags", "switched.extras")}
    assert store_check(fleet.app)[0] == 1
    assert store_check(fleet.app, "--repair")[0] == 0
    assert store_check(fleet.app) == (0, [])
    assert not flags.enabled("other")


def test_word_among_the_counts_of_a_trial_is_no_count(fleet: Everything) -> None:
    """The other counts remain, and the leader can end the trial."""
    key, flags = fleet.store.key("trial", "plan"), FlagStore(fleet.store)
    fleet.store.client.hset(key, mapping={"shed:calls": "x", "shed:seconds": "inf", "a": "5"})
    assert flags.counted("plan") == {"a": 5.0}
    assert len(said(fleet)) == 2


def test_leases_without_an_end_keep_no_slot(fleet: Everything) -> None:
    """Neither a lease nor a place in line that no script wrote keeps others waiting for ever."""
    slots, client = SlotStore(fleet.store), fleet.store.client
    client.zadd(fleet.store.key("slots", "mail", "held"), {"theirs": math.inf})
    client.zadd(fleet.store.key("slots", "mail", "line"), {"theirs": -math.inf})
    answers = [slots.take("mail", "owner", 1) for _ in range(3)]
    assert None in answers
    assert all(one is None or one <= 10 for one in answers)


def test_slot_of_another_type_costs_no_other_lease(fleet: Everything) -> None:
    """One exchange renews the leases of all dependencies."""
    slots, store = SlotStore(fleet.store), fleet.store
    assert slots.take("shop", "owner", 1) is None
    store.client.set(store.key("slots", "mail", "held"), "x")
    assert slots.renew([("mail", "owner", 1), ("shop", "owner", 1)])[1] == 1


def test_leader_without_an_end_leads_nobody(fleet: Everything) -> None:
    """A key that no worker keeps up is no leader."""
    fleet.store.client.set(fleet.store.key("leader"), "theirs")
    assert Election(fleet.store).report("{}").is_leader


@pytest.mark.parametrize("text", ['{"id":5,"place":"x"}', '{"id":null,"place":"x"}', '{"id":"a"}'])
def test_garbage_among_the_ledgers_keeps_no_worker_from_starting(
    fleet: Everything, text: str
) -> None:
    """What is no ledger is not another ledger."""
    fleet.store.client.hset(fleet.store.key("ledgers"), "celery", text)
    common: Any = {"ledger": "id", "host": "", "place": "here"}
    assert not Ledgers(fleet.store).compare(["celery"], **common, mode="join")


def test_check_lists_each_value_and_repairs_only_that(fleet: Everything) -> None:
    """By key, with what is wrong; a key that no version knows stays, and good values do."""
    store, client = fleet.store, fleet.store.client
    fleet.breaker("shop").force_open(seconds=60, **WHO)
    client.hset(store.key("circuits"), "mail", "x")
    client.set(store.key("holds"), "x")
    client.set(store.key("future"), "x")
    code, rows = store_check(fleet.app)
    found = {(row["key"], row["name"]): row["repair"] for row in rows}
    assert found == {
        ("circuits", "mail"): "delete the value",
        ("holds", ""): "delete the key",
        ("future", ""): None,
    }
    assert code == 1
    assert store_check(fleet.app, "--repair")[0] == 0
    code, rows = store_check(fleet.app)
    assert (code, [row["key"] for row in rows]) == (0, ["future"])
    assert client.hkeys(store.key("circuits")) == [b"shop"]


def test_every_kind_of_key_is_known_and_tried() -> None:
    """Whoever adds a key to the code adds its kind, and a sample that is filled with garbage."""
    known = {kind.pattern.partition(":")[0] for kind in KINDS}
    used = set()
    for path in (ROOT / "resilience").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            owner = ast.unparse(node.func).removesuffix(".key")
            first = node.args[0]
            if name != "key" or not (owner == "key" or owner.endswith("store")):
                continue
            if isinstance(first, ast.Constant):
                used.add(first.value)
            elif isinstance(first, ast.Name) and first.id in NAMED:
                used.add(NAMED[first.id])
    assert len(used) >= 20
    assert used - {""} <= known
    everything = Everything("redis://localhost:1")
    tried = set(samples(everything))
    assert tried == {
        kind.pattern for kind in KINDS if kind.pattern.partition(":")[0] not in {"fan", "aside"}
    }


def test_keys_that_an_app_writes_are_of_known_kinds(fleet: Everything) -> None:
    """The pulse, orders, slots and all else; nothing that this library writes is unreadable."""
    fleet.read_all()
    begin = fleet.store.key("")
    keys = [one.decode().removeprefix(begin) for one in fleet.store.client.scan_iter(f"{begin}*")]
    assert len(keys) > 15
    assert [key for key in keys if kind_of(key) is None] == []
    assert store_check(fleet.app) == (0, [])


def test_user_who_may_not_ping_finds_the_store_again(server: ValkeyProcess) -> None:
    """Recovery needs no command that work does not need."""
    admin = server.client()
    admin.config_set("appendonly", "no")
    rules = ["on", ">word", "~*", "+@all", "-ping", "-info", "-client", "-time"]
    url = server.url.replace("://", "://worker:word@", 1)
    events: list[object] = []
    store = Store(url, namespace=uuid4().hex, timeout_seconds=2, listeners=[events.append])

    def works() -> bool:
        try:
            return bool(store.run(lambda client: client.set("x", 1)))
        except StoreUnavailableError:
            return False

    admin.execute_command("ACL", "SETUSER", "worker", *rules)
    try:
        assert works()
        server.stop()
        assert not works()
        server.start()
        server.client().execute_command("ACL", "SETUSER", "worker", *rules)
        wait_until(works, 20, "the store is used again")
        assert [type(one) for one in events] == [StoreLost, StoreFound]
    finally:
        if not server.running:
            server.start()
        server.client().execute_command("ACL", "DELUSER", "worker")
