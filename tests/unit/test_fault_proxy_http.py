"""What the HTTP server of the fault proxy makes of requests that are none, or none of its own."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.chaos.proxy import ProxyError
from resilience.chaos.proxy.addresses import split_address
from resilience.chaos.proxy.toxic import ProxyOrder, Toxic
from resilience.testing.ports import LOCALHOST
from tests.unit.proxied import SECONDS, receive_all
from tests.unit.proxy_client import Client, proxy_api

FIELDS = ["name", "listen", "upstream", "enabled", "toxics", "type", "stream", "toxicity"]
FIELDS += ["attributes", "latency", "jitter"]


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a new server of the API."""
    with proxy_api() as port:
        yield port


@pytest.fixture
def call(port: int) -> Iterator[Client]:
    """A client of the server."""
    client = Client(port)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/proxies/one/toxics/a/b", 404),
        ("GET", "/proxies/one/other", 404),
        ("PUT", "/proxies", 405),
        ("GET", "/reset", 405),
        ("DELETE", "/proxies/one/toxics", 405),
    ],
)
def test_unknown_path_and_method_are_refused(
    call: Client, method: str, path: str, status: int
) -> None:
    """As by any HTTP server."""
    assert call(method, path).status == status


def test_browsers_are_refused(call: Client) -> None:
    """A web page must not steer the proxies of who reads it."""
    agent = {"User-Agent": "Mozilla/5.0 (X11)"}

    assert call("POST", "/reset", None, **agent) == (403, "User agent not allowed\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\0\1\2\r\n\r\n", 400, id="no-http"),
        pytest.param(b"GET /proxies HTTP/2.0\r\n\r\n", 505, id="version"),
        pytest.param(b"POST /reset\r\n\r\n", 400, id="words"),
        pytest.param(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, id="header"),
        pytest.param(b"POST /reset HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, id="negative"),
        pytest.param(b"POST /reset HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", 400, id="no-number"),
        pytest.param(
            b"POST /reset HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411, id="chunked"
        ),
        pytest.param(
            b"POST /populate HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + bytes(999_999),
            413,
            id="large-body",
        ),
        pytest.param(b"GET /" + b"a" * 99_999 + b" HTTP/1.1\r\n\r\n", 414, id="long-line"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n", 431, id="headers"),
    ],
)
def test_broken_request_is_answered_and_its_connection_closed(
    port: int, call: Client, sent: bytes, status: int
) -> None:
    """The answer says what is wrong; other connections are not concerned."""
    with socket.create_connection((LOCALHOST, port), SECONDS) as client:
        client.sendall(sent)
        answer = receive_all(client)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["status"] == status
    assert call("GET", "/version").status == 200


def test_client_that_goes_in_the_middle_of_a_request_leaves_the_server_well(
    port: int, call: Client
) -> None:
    """In its head, in its body, with a reset, and before the answer."""
    for sent in (b"", b"POST /reset HT", b"POST /reset HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"):
        for linger in (b"\0" * 8, b"\1" + b"\0" * 7):
            with socket.create_connection((LOCALHOST, port), SECONDS) as client:
                client.sendall(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    assert call("GET", "/proxies").status == 200


def test_client_of_http_1_0_gets_an_answer_and_the_end(port: int) -> None:
    """Without keep-alive the connection is closed."""
    with socket.create_connection((LOCALHOST, port), SECONDS) as client:
        client.sendall(b"GET /version HTTP/1.0\r\n\r\n")

        assert receive_all(client).endswith(b'{"version": "2.12.0"}')


VALID = b"POST /proxies HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(FIELDS), inner),
    max_leaves=8,
)


def test_no_bytes_are_more_than_a_bad_request(port: int, call: Client) -> None:
    """Whatever takes the place of a part of a request: it is answered, or has no end."""

    @given(st.binary(), st.integers(0, len(VALID)), st.integers(0, 9))
    def check(noise: bytes, place: int, cut: int) -> None:
        with socket.create_connection((LOCALHOST, port), SECONDS) as client:
            client.sendall(VALID[:place] + noise + VALID[place + cut :])
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client)[:9] in {b"", b"HTTP/1.1 "}

    check()
    assert call("GET", "/proxies") == (200, {})


@given(JSON)
def test_no_json_is_more_than_a_bad_order(body: object) -> None:
    """Whatever a client asks for is a proxy, a toxic, or a mistake that is named."""
    for parse in (ProxyOrder.parse, Toxic.parse, Toxic.parse({"type": "latency"}).updated):
        with suppress(ProxyError):
            parse(body)


@given(st.text())
def test_no_address_is_more_than_malformed(address: str) -> None:
    """It has a host and a port, or is refused."""
    with suppress(ProxyError):
        assert 0 <= split_address(address, "listen")[1] <= 65_535
