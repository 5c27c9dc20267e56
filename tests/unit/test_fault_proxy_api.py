"""The proxy's HTTP API: the answers of Toxiproxy, and what a broken request costs."""

import gc
import socket
from collections.abc import Iterator

import pytest

from resilience.chaos.proxy import FaultProxy
from resilience.testing.ports import LOCALHOST, free_port
from tests.unit.proxied import SECONDS, comes_not, receive_all
from tests.unit.proxy_client import Client, proxy_api

LATENCY = {
    "attributes": {"latency": 5, "jitter": 0},
    "name": "latency_downstream",
    "type": "latency",
    "stream": "downstream",
    "toxicity": 1.0,
}


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a new server of the API."""
    with proxy_api() as port:
        yield port


@pytest.fixture
def call(port: int) -> Iterator[Client]:
    """A client of a server that has a proxy `one`, which is disabled."""
    client = Client(port)
    asked = {"name": "one", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1", "enabled": False}
    assert client("POST", "/proxies", asked).status == 201
    yield client
    client.close()


def test_created_proxy_listens_on_the_port_that_its_answer_names(call: Client) -> None:
    """Port 0 picks a free one; without an address it listens on this host only."""
    asked = {"name": "two", "upstream": "127.0.0.1:1"}

    status, made = call("POST", "/proxies", {**asked, "listen": ""})

    assert status == 201
    host, port = made["listen"].rsplit(":", 1)
    assert made == {**asked, "listen": f"127.0.0.1:{port}", "enabled": True, "toxics": []}
    with socket.create_connection((host, int(port)), SECONDS) as client:
        assert receive_all(client) == b""  # as the upstream refuses
    assert call("GET", "/proxies/two") == (200, made)
    assert call("GET", "/proxies").body.keys() == {"one", "two"}


def test_proxy_is_created_with_its_toxics_in_one_step(call: Client) -> None:
    """What Toxiproxy lacks: no connection comes between the proxy and its toxics."""
    toxics = [{"type": "latency", "attributes": {"latency": 5}}]
    asked = {"name": "two", "upstream": "127.0.0.1:1", "toxics": toxics}

    assert call("POST", "/proxies", asked).body["toxics"] == [LATENCY]
    assert call("GET", "/proxies/two/toxics") == (200, [LATENCY])


def test_proxy_with_a_wrong_toxic_is_not_created(call: Client) -> None:
    """All of it or nothing."""
    asked = {"name": "two", "upstream": "127.0.0.1:1", "toxics": [{"type": "latncy"}]}

    assert call("POST", "/proxies", asked).status == 400
    assert call("GET", "/proxies/two").status == 404


def test_toxic_is_created_shown_changed_and_deleted_as_in_toxiproxy(call: Client) -> None:
    """Defaults are filled in; what a change does not name stays."""
    toxics = "/proxies/one/toxics"

    assert call("POST", toxics, {"type": "latency", "attributes": {"latency": 5}}) == (200, LATENCY)
    changed = {**LATENCY, "attributes": {"latency": 5, "jitter": 2}, "toxicity": 0.5}
    change = {"attributes": {"jitter": 2}, "toxicity": 0.5}
    assert call("PATCH", f"{toxics}/latency_downstream", change) == (200, changed)
    assert call("POST", f"{toxics}/latency_downstream", {}) == (200, changed)
    assert call("GET", f"{toxics}/latency_downstream") == (200, changed)
    assert call("DELETE", f"{toxics}/latency_downstream") == (204, "")
    assert call("GET", toxics) == (200, [])


def test_proxy_is_moved_disabled_and_enabled_by_updates(call: Client) -> None:
    """PATCH and the older POST do the same; fields that are not named stay."""
    port = free_port()
    moved = {"listen": f"127.0.0.1:{port}", "upstream": "127.0.0.1:2", "enabled": True}

    assert call("PATCH", "/proxies/one", moved) == (200, {"name": "one", **moved, "toxics": []})
    socket.create_connection((LOCALHOST, port), SECONDS).close()
    assert call("POST", "/proxies/one", {"enabled": False}).body["enabled"] is False
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOCALHOST, port), SECONDS)
    assert call("POST", "/proxies/one", {"enabled": True}).body == {
        **moved,
        "name": "one",
        "toxics": [],
    }


def test_proxy_that_stops_while_it_accepts_leaves_nothing_open() -> None:
    """A connection that is garbage and still open would warn, and so fail this test."""
    with FaultProxy(f"{LOCALHOST}:1") as proxy:
        for _ in range(100):
            socket.create_connection((LOCALHOST, proxy.port), SECONDS).close()
            proxy.disable()
            proxy.enable()
    gc.collect()


def test_update_that_changes_nothing_keeps_connections(call: Client) -> None:
    """A name in the address to listen on stands for the address that it means."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        upstream = f"localhost:{listener.getsockname()[1]}"
        port = free_port()
        asked = {"name": "two", "listen": f"localhost:{port}", "upstream": upstream}
        assert call("POST", "/proxies", asked).status == 201
        with socket.create_connection((LOCALHOST, port), SECONDS) as client:
            server, _ = listener.accept()

            assert call("PATCH", "/proxies/two", asked).status == 200
            assert call("POST", "/populate", [asked]).status == 201

            assert comes_not(client)
            server.close()


def test_populate_creates_keeps_and_replaces(call: Client) -> None:
    """It may be repeated: proxies with the same addresses stay as they are, with their toxics."""
    listen = f"127.0.0.1:{free_port()}"
    proxies = [
        {"name": name, "listen": listen, "upstream": "a:1", "enabled": False} for name in "ab"
    ]
    status, first = call("POST", "/populate", proxies)
    assert (status, [proxy["name"] for proxy in first["proxies"]]) == (201, ["a", "b"])
    for name in "ab":
        assert call("POST", f"/proxies/{name}/toxics", {"type": "stall"}).status == 200

    proxies[1]["upstream"] = "b:1"
    kept, replaced = call("POST", "/populate", proxies).body["proxies"]

    assert [toxic["name"] for toxic in kept["toxics"]] == ["stall_downstream"]
    assert replaced == {**proxies[1], "toxics": []}
    assert call("POST", "/populate", []) == (201, {"proxies": None})


def test_populate_that_fails_shows_what_it_has_created(call: Client) -> None:
    """The error stands beside the proxies, as in Toxiproxy."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        good = {"name": "a", "upstream": "a:1"}

        status, body = call("POST", "/populate", [good, {**good, "name": "b", "listen": listen}])

    assert status == body["status"] == 500
    assert f"listen tcp {listen}: bind: address already in use; " in body["error"]
    assert [proxy["name"] for proxy in body["proxies"]] == ["a"]


def test_reset_enables_all_proxies_and_removes_all_toxics(call: Client) -> None:
    """A test leaves the next one a whole network."""
    call("POST", "/proxies/one/toxics", {"type": "stall"})

    assert call("POST", "/reset") == (204, "")

    one = call("GET", "/proxies/one").body
    assert (one["enabled"], one["toxics"]) == (True, [])


def test_deleted_proxy_listens_no_more(call: Client) -> None:
    """Its name and its port are free again."""
    made = call("POST", "/proxies", {"name": "two", "upstream": "a:1"}).body

    assert call("DELETE", "/proxies/two") == (204, "")

    assert call("GET", "/proxies/two").status == 404
    assert call("POST", "/proxies", made).body == made


def test_version_is_that_of_the_api(call: Client) -> None:
    """Clients ask for it to learn what the server can do."""
    assert call("GET", "/version") == (200, {"version": "2.12.0"})


STREAM = "stream was invalid, can be either upstream or downstream"
TOXICS = "/proxies/one/toxics"
LONG_LABEL = f"{'x' * 64}:1"
"""No host can have this name, so that nobody is asked for it."""


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/proxies", {"upstream": "a:1"}, 400, "missing required field: name"),
        ("POST", "/proxies", {"name": "a"}, 400, "missing required field: upstream"),
        ("POST", "/proxies", {"name": "one", "upstream": "a:1"}, 409, "proxy already exists"),
        ("POST", "/proxies", b"{", 400, "bad request body: "),
        ("POST", "/proxies", b"", 400, "bad request body: "),
        ("POST", "/proxies", b"[" * 100_000, 400, "bad request body: "),
        ("POST", "/proxies", b"\xff", 400, "bad request body: "),
        ("POST", "/proxies", [], 400, "bad request body: a JSON object is needed, got list"),
        ("POST", "/proxies", {"name": 5, "upstream": "a:1"}, 400, "bad request body: name: "),
        ("POST", "/proxies", {"name": "a", "upstream": "a"}, 400, "upstream must be host:port"),
        ("POST", "/proxies", {"name": "a", "upstream": "a:1", "listen": LONG_LABEL},
            500, f"listen tcp {LONG_LABEL!r}: "),
        ("POST", "/populate", {}, 400, "bad request body: a JSON array is needed, got dict"),
        ("POST", "/populate", [{"name": "a"}], 400,
            "missing required field: upstream at proxy 1"),
        ("GET", "/proxies/two", None, 404, "proxy not found"),
        ("PATCH", "/proxies/two", {}, 404, "proxy not found"),
        ("DELETE", "/proxies/two", None, 404, "proxy not found"),
        ("GET", "/proxies/two/toxics", None, 404, "proxy not found"),
        ("PATCH", "/proxies/one", {"enabled": "no"}, 400, "bad request body: enabled: "),
        ("GET", f"{TOXICS}/a", None, 404, "toxic not found"),
        ("PATCH", f"{TOXICS}/a", {}, 404, "toxic not found"),
        ("DELETE", f"{TOXICS}/a", None, 404, "toxic not found"),
        ("POST", TOXICS, {}, 400, "invalid toxic type"),
        ("POST", TOXICS, {"type": ["latency"]}, 400, "invalid toxic type"),
        ("POST", TOXICS, {"type": "latency", "stream": "x"}, 400, STREAM),
        ("POST", TOXICS, {"type": "latency", "attributes": 5}, 400, "bad request body: a JSON"),
        ("POST", TOXICS, {"type": "latency", "attributes": {"latency": 1.5}}, 400,
            "bad request body: latency: "),
        ("POST", TOXICS, {"type": "latency", "toxicity": float("nan")}, 400,
            "bad request body: toxicity: "),
        ("POST", TOXICS, {"type": "latency", "name": "x" * 999}, 400, "bad request body: name: "),
    ],
)  # fmt: skip
def test_request_that_cannot_be_fulfilled_is_answered_as_by_toxiproxy(
    call: Client, method: str, path: str, body: object, status: int, error: str
) -> None:
    """Status and text are those that its clients look for; nothing has changed."""
    before = call("GET", "/proxies")

    answer = call(method, path, body)

    assert (answer.status, answer.body["status"]) == (status, status)
    assert answer.body["error"].startswith(error)
    assert call("GET", "/proxies") == before


def test_toxic_of_a_name_that_exists_is_a_conflict(call: Client) -> None:
    """Its name need not be given: type and stream make it."""
    assert call("POST", TOXICS, {"type": "stall"}).status == 200

    assert call("POST", TOXICS, {"type": "stall"}) == (
        409,
        {"error": "toxic already exists", "status": 409},
    )


def test_fields_that_are_null_or_unknown_are_as_if_not_given(call: Client) -> None:
    """Clients send back what they were shown, and null for what they do not know."""
    body = {
        **LATENCY,
        "toxicity": None,
        "proxy": "one",
        "attributes": {"latency": 5, "jitter": None},
    }

    assert call("POST", TOXICS, body) == (200, LATENCY)


def test_names_are_decoded(call: Client) -> None:
    """A name may have spaces and slashes."""
    assert call("POST", "/proxies", {"name": "a b/c", "upstream": "a:1"}).status == 201

    assert call("GET", "/proxies/a%20b%2Fc").status == 200
    assert call("DELETE", "/proxies/a%20b%2Fc?x=y").status == 204


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0", ":0", "localhost:0"])
def test_proxy_listens_on_every_form_of_address_that_toxiproxy_takes(
    call: Client, listen: str
) -> None:
    """`[::]`, as in its own examples, takes IPv4 connections as well."""
    if ":" in listen.rpartition(":")[0] and not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    made = call("POST", "/proxies", {"name": "two", "upstream": "127.0.0.1:1", "listen": listen})

    assert made.status == 201
    host = "::1" if listen == "[::1]:0" else LOCALHOST
    port = int(made.body["listen"].rpartition(":")[2])
    with socket.create_connection((host, port), SECONDS) as client:
        assert receive_all(client) == b""


@pytest.mark.parametrize("long", ["name", "type", "stream", "attributes"])
def test_error_repeats_little_of_what_was_sent(call: Client, long: str) -> None:
    """A body may have a megabyte, and the answer to it a few hundred characters."""
    text = "k" * 900_000
    asked = {"type": "latency", "attributes": {"latency": 5}}
    asked |= {"attributes": {text: 1}} if long == "attributes" else {long: text}
    asked |= {"toxicity": "none"} if long == "name" else {}

    status, answer = call("POST", "/proxies/one/toxics", asked)

    assert status == 400
    assert len(answer["error"]) < 1_100
