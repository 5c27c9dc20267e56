"""Web users read their own writes in other processes, through a cookie or a header."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from resilience.clock import SystemClock
from resilience.consistency import EVERYWHERE, Position
from resilience.consistency.signing import TokenSigner
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess
from resilience.testing.valkey import ValkeyProcess

TEXT_MAX = 4000

MODULE = "tests.integration.apps.web_positions"
SECRET, OLD_SECRET = "a" * 20, "b" * 20
COOKIE, HEADER = "resilience-position", "X-Position"
KINDS = ("asgi", "wsgi")


class Web:
    """Web processes that share a store and a secret.

    One of each kind, and one of each kind (`keyed`) whose app names its users.
    """

    def __init__(self, stack: ExitStack, valkey: ValkeyProcess, path: Path) -> None:
        """Start them."""
        self.urls: dict[str, str] = {}
        for name in (*KINDS, "keyed-asgi", "keyed-wsgi"):
            port = free_port()
            process = ServerProcess(
                [sys.executable, "-m", MODULE, name.removeprefix("keyed-"), str(port)],
                ready="Uvicorn running",
                log_path=path / f"{name}.log",
                env={
                    "RESILIENCE_STORE_URL": valkey.url,
                    "TEST_SECRETS": f"{SECRET},{OLD_SECRET}",
                    **({"TEST_KEYED": "1"} if name.startswith("keyed") else {}),
                },
            )
            process.start()
            stack.callback(process.stop)
            self.urls[name] = f"http://{LOCALHOST}:{port}"


@pytest.fixture(scope="module")
def web(valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """All web processes, for all tests of the module."""
    with ExitStack() as stack:
        yield Web(stack, valkey, tmp_path_factory.mktemp("web"))


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    """A client with cookies, which go to all ports of a host."""
    with httpx.Client(timeout=20) as client:
        yield client


@pytest.mark.parametrize("reads_at", KINDS)
@pytest.mark.parametrize("writes_at", KINDS)
def test_own_write_follows_its_user_to_another_process(
    web: Web, browser: httpx.Client, writes_at: str, reads_at: str
) -> None:
    """A user who has written reads from the primary there, another user from the replica."""
    read, write = f"{web.urls[reads_at]}/read", f"{web.urls[writes_at]}/write"
    assert browser.get(read).json()["from"] == "replica"
    assert COOKIE not in browser.cookies
    assert browser.post(write).status_code == 200
    after = browser.get(read).json()
    assert after["from"] == "primary"
    assert browser.get(read).json() == after  # the key that identifies the user included
    other = httpx.get(read).json()
    assert other["from"] == "replica"
    assert other["key"] != after["key"]


@pytest.mark.parametrize("kind", KINDS)
def test_header_serves_clients_that_keep_no_cookies(web: Web, kind: str) -> None:
    """It carries the same token as the cookie."""
    response = httpx.post(f"{web.urls[kind]}/write")
    assert response.headers[HEADER] == response.cookies[COOKIE]
    assert httpx.get(f"{web.urls[kind]}/read").json()["from"] == "replica"
    headers = {HEADER: response.headers[HEADER]}
    assert httpx.get(f"{web.urls[kind]}/read", headers=headers).json()["from"] == "primary"


@pytest.mark.parametrize("kind", KINDS)
def test_cookie_goes_only_where_it_must(web: Web, browser: httpx.Client, kind: str) -> None:
    """Scripts cannot read it, it expires, and a request without reads and writes gets none."""
    url = web.urls[kind]
    assert "set-cookie" not in browser.get(f"{url}/nothing").headers
    cookie = browser.post(f"{url}/write").headers["set-cookie"]
    assert cookie.endswith("; Max-Age=30; Path=/; HttpOnly; SameSite=Lax")
    assert "set-cookie" not in browser.get(f"{url}/nothing").headers


@pytest.mark.parametrize("kind", KINDS)
def test_token_that_is_not_ours_is_no_token(web: Web, kind: str) -> None:
    """One that is tampered with, expired, of the future, of another secret, or garbage."""
    url = web.urls[kind]
    good = httpx.post(f"{url}/write").headers[HEADER]
    token = TokenSigner(SECRET).read(good, now=_now())
    assert token is not None

    def reads_from(text: str) -> str:
        cookie = f"a=b; {COOKIE}={text}; c".encode()
        answer = httpx.get(f"{url}/read", headers={b"Cookie": cookie})
        assert answer.status_code == 200, text
        return str(answer.json()["from"])

    assert reads_from(good) == "primary"
    assert reads_from(TokenSigner(OLD_SECRET).sign(token, now=_now())) == "primary"
    bad = [
        good[:-1],
        good[1:],
        good.swapcase(),
        TokenSigner(SECRET).sign(token, now=_now() - 31),
        TokenSigner(SECRET).sign(token, now=_now() + 31),
        TokenSigner("c" * 20).sign(token, now=_now()),
        *("", "=", ".", "..", '"', "é", "x" * 5000, "%00", "a.b"),
    ]
    assert [text for text in bad if reads_from(text) != "replica"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_token_of_another_user_is_ignored(web: Web, kind: str) -> None:
    """If the app names its users. What a user wrote before the login still counts after it."""
    url = web.urls[f"keyed-{kind}"]
    ann, bob = {"X-User": "ann"}, {"X-User": "bob"}

    def reads_from(text: str, headers: dict[str, str]) -> tuple[str, str | None]:
        answer = httpx.get(f"{url}/read", headers={**headers, HEADER: text}).json()
        return answer["from"], answer["key"]

    anns = httpx.post(f"{url}/write", headers=ann).headers[HEADER]
    assert reads_from(anns, ann) == ("primary", "ann")
    assert reads_from(anns, bob) == ("replica", "bob")
    assert reads_from(anns, {}) == ("replica", None)
    nobodys = httpx.post(f"{url}/write").headers[HEADER]
    assert reads_from(nobodys, ann) == ("primary", "ann")


@pytest.mark.parametrize("kind", KINDS)
def test_stale_answer_says_so(web: Web, kind: str) -> None:
    """The header gives the lag, rounded up, if it is known."""
    url = web.urls[kind]
    lagging = httpx.get(f"{url}/stale", params={"lag": 1.231})
    assert lagging.headers["X-Degradation"] == "stale; lag=1.24"
    if kind == "wsgi":
        assert httpx.get(f"{url}/stale").headers["X-Degradation"] == "stale"
    assert "X-Degradation" not in httpx.get(f"{url}/read").headers


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_body_is_made_in_the_session_of_its_request(web: Web, kind: str) -> None:
    """All parts are; the token, which is sent before them, has what was written before them."""
    url = web.urls[kind]
    with httpx.stream("GET", f"{url}/stream") as response:
        text = response.headers[HEADER]
        keys = response.read().decode().split()
    assert len(keys) == 3
    assert len(set(keys)) == 1
    answer = httpx.get(f"{url}/read", headers={HEADER: text}).json()
    assert answer == {"from": "primary", "key": keys[0]}


@pytest.mark.parametrize("how", ["async", "sync"])
def test_databases_are_asked_beside_the_event_loop(web: Web, how: str) -> None:
    """Asynchronous ones in a greenlet, synchronous ones in a thread."""
    response = httpx.get(f"{web.urls['asgi']}/asked/{how}")
    token = TokenSigner(SECRET).read(response.headers[HEADER], now=_now())
    assert token is not None
    assert token.positions["main"].covers(Position.at("7/1", 1))


@pytest.mark.parametrize("kind", KINDS)
def test_response_goes_out_although_its_position_cannot_be_found_out(web: Web, kind: str) -> None:
    """The next request then reads everything from the primary."""
    response = httpx.get(f"{web.urls[kind]}/asked/broken")
    assert response.status_code == 200
    headers = {HEADER: response.headers[HEADER]}
    assert httpx.get(f"{web.urls[kind]}/read", headers=headers).json()["from"] == "primary"


@pytest.mark.parametrize("kind", KINDS)
def test_positions_that_do_not_fit_into_a_cookie_are_unknown(
    web: Web, browser: httpx.Client, kind: str
) -> None:
    """The primary then answers what they would have decided: reads of whatever key."""
    response = browser.get(f"{web.urls[kind]}/many")
    text = response.headers[HEADER]
    assert len(text) <= TEXT_MAX
    token = TokenSigner(SECRET).read(text, now=_now())
    assert token is not None
    assert 0 < len(token.keys) < 100
    assert set(token.unknown) == {"main"}
    assert EVERYWHERE not in token.unknown
    known = TokenSigner(SECRET).sign(replace(token, unknown={}), now=_now())
    for one, source in ((text, "primary"), (known, "replica")):
        answer = httpx.get(f"{web.urls[kind]}/read", params={"key": "never"}, headers={HEADER: one})
        assert answer.json()["from"] == source


def _now() -> float:
    """Return fleet time: everything runs on one host."""
    return SystemClock.now()
