"""Who may see the Degradation page, and who may order: Flower's own rules, for every handler."""

import asyncio
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from celery import Celery
from flower.options import default_options  # type: ignore[import-untyped]
from flower.urls import settings  # type: ignore[import-untyped]
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import create_signed_value

from resilience import Dependency, Resilience
from resilience.ledger import Job
from resilience.monitor.flower import install
from resilience.monitor.flower.app import DegradationFlower
from resilience.monitor.flower.handlers import BODY_BYTES_MAX, POLICY, ROUTES
from resilience.settings import Settings

READS = ("", "/data", "/letters", "/post-mortem.md")
ANN = {"basic_auth": ["ann:secret"]}
PASSWORD = httpx.BasicAuth("ann", "secret")
OAUTH = {"auth": "ann@shop.example", "basic_auth": None}
INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", re.IGNORECASE
)


@dataclass
class Ask:
    """A request, and what it asks with."""

    path: str = ""
    method: str = "GET"
    home: str = "/degradation"
    headers: Mapping[str, str] = field(default_factory=dict)
    auth: httpx.Auth | None = None
    json: Any = None
    data: Any = None
    content: str | None = None

    async def send(self, http: httpx.AsyncClient) -> httpx.Response:
        """Return the answer."""
        if self.method == "POST" and (self.json, self.data, self.content) == (None, None, None):
            self.json = {}
        return await http.request(
            self.method,
            self.home + self.path,
            headers=self.headers,
            auth=self.auth or httpx.USE_CLIENT_DEFAULT,
            json=self.json,
            data=self.data,
            content=self.content,
        )


@pytest.fixture
def make_app(tmp_path: Path) -> Any:  # noqa: ANN401 - a function
    """Return what makes an app without a store, whose ledger is a new file."""

    def make() -> Celery[Any]:
        app: Celery[Any] = Celery("shop", broker="memory://", set_as_current=False)
        ledger = Settings(ledger_url=f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
        Resilience(app, dependencies=[Dependency("mail")], settings=ledger)
        return app

    return make


def answers(make: Any, asks: list[Ask], **options: Any) -> list[httpx.Response]:  # noqa: ANN401
    """Return what a Flower with these options answers."""

    async def ask() -> list[httpx.Response]:
        install()
        capp = make()
        known = SimpleNamespace(**{**default_options.as_dict(), **options})
        flower = DegradationFlower(options=known, capp=capp, **settings)
        server, sockets = HTTPServer(flower), bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                return [await one.send(http) for one in asks]
        finally:
            server.stop()
            await server.close_all_connections()
            flower.executor.shutdown()
            Resilience.of(capp).ledger.close()

    return asyncio.run(ask())


def every(**how: Any) -> list[Ask]:  # noqa: ANN401 - as Ask
    """Return a request for each handler."""
    return [*(Ask(path, **how) for path in READS), Ask("/act", "POST", **how)]


def codes(found: list[httpx.Response]) -> list[int]:
    """Return the status codes."""
    return [one.status_code for one in found]


def test_every_handler_is_tried_here() -> None:
    """A new handler must be added to these tests, unless it serves files to everybody."""
    tried = {f"/degradation{path}" for path in (*READS, "/act", "/static/(.*)")}
    assert {one.regex.pattern.rstrip("$").replace("\\.", ".") for one in ROUTES} == tried


def test_basic_auth_guards_every_handler(make_app: Any) -> None:  # noqa: ANN401
    """Nobody sees or orders anything without a password of Flower's, nor with a wrong one."""
    wrong = httpx.BasicAuth("ann", "wrong")
    found = answers(make_app, [*every(), *every(auth=wrong), *every(auth=PASSWORD)], **ANN)
    assert codes(found) == [401] * 10 + [200] * 4 + [400]  # an order that says nothing


def test_without_users_everybody_sees_and_nobody_orders(
    make_app: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with Flower's own API, an operator must open it; until then the page says why."""
    found = answers(make_app, every())
    assert codes(found) == [200, 200, 200, 200, 401]
    assert "basic_auth" in found[1].json()["no_actions"]
    assert "heard of no worker" in found[1].json()["unknown"]["events"]
    assert "no store" in found[1].json()["unknown"]["store"]
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    found = answers(make_app, every())
    assert codes(found) == [200, 200, 200, 200, 400]
    assert not found[1].json()["no_actions"]


def test_read_only_flower_shows_and_orders_nothing(make_app: Any) -> None:  # noqa: ANN401
    """Whoever may see it; the page says that it is read-only."""
    found = answers(make_app, every(auth=PASSWORD), read_only=True, **ANN)
    assert codes(found) == [200, 200, 200, 200, 403]
    assert "read-only" in found[1].json()["no_actions"]


def test_users_of_oauth_need_their_cookie_and_its_token_to_order(make_app: Any) -> None:  # noqa: ANN401
    """A page of another site has the cookie sent along, but cannot read the token."""
    signed = create_signed_value(settings["cookie_secret"], "user", "ann@shop.example").decode()
    token = "2|aaaaaaaa|" + "00" * 16 + "|1700000000"
    cookie = {"Cookie": f'user="{signed}"; _xsrf={token}'}
    with_token = {**cookie, "X-XSRFToken": token}
    stranger = create_signed_value(settings["cookie_secret"], "user", "eve@evil.example").decode()
    found = answers(
        make_app,
        [
            *every(),
            *every(headers={"Cookie": f'user="{stranger}"'}),
            *every(headers=cookie),
            *every(headers=with_token),
        ],
        **OAUTH,
    )
    away = [302, 302, 302, 302, 403]
    assert codes(found) == away * 2 + [200, 200, 200, 200, 403] + [200, 200, 200, 200, 400]


def test_orders_from_other_sites_are_refused(make_app: Any) -> None:  # noqa: ANN401
    """Browsers send a password along; neither a fetch nor a form of another site gets through."""
    asks = [
        Ask("/act", "POST", auth=PASSWORD, headers={"Sec-Fetch-Site": "cross-site"}),
        Ask("/act", "POST", auth=PASSWORD, headers={"Origin": "http://evil.example"}),
        Ask("/act", "POST", auth=PASSWORD, data={"action": "hold"}),
        Ask("/act", auth=PASSWORD),
    ]
    assert codes(answers(make_app, asks, **ANN)) == [403, 403, 415, 405]


def test_page_lives_behind_a_prefix(make_app: Any) -> None:  # noqa: ANN401
    """Its files, its data and the link in the navigation are there, and nothing without it."""
    asks = [*every(home="/ops/degradation", auth=PASSWORD), Ask(auth=PASSWORD)]
    asks += [Ask("/ops/tasks", home="", auth=PASSWORD)]
    found = answers(make_app, asks, url_prefix="ops", **ANN)
    assert codes(found) == [200, 200, 200, 200, 400, 404, 200]
    links = re.findall(r'(?:href|src|data-home)="(/[^"]*degradation[^"]*)"', found[0].text)
    assert len(links) >= 6
    assert all(one.startswith("/ops/degradation") for one in links)
    assert 'href="/ops/degradation"' in found[-1].text


def test_page_has_nothing_inline(make_app: Any) -> None:  # noqa: ANN401
    """Its policy allows files of this server only; with it no text of others can become code."""
    [page] = answers(make_app, [Ask()])
    assert page.headers["Content-Security-Policy"] == POLICY
    assert "default-src 'self'" in POLICY
    assert "unsafe" not in POLICY
    assert INLINE.findall(page.text) == []


def test_page_without_a_command_line_suggests_commands_by_the_name_of_the_app(
    make_app: Any,  # noqa: ANN401
) -> None:
    """A command without the app would end with an error."""
    ledger = Resilience.of(make_app()).ledger
    job = Job(id="1", task="send", dependency="mail", queue="mail", message="{}")
    ledger.bury(job, reason="bug", error=TypeError("x"))
    ledger.close()
    [_, found] = answers(make_app, [Ask("/data"), Ask("/data")])
    assert "celery -A shop resilience dead list --dependency mail" in found.json()["next"]


def test_order_that_makes_no_sense_is_refused_with_words(make_app: Any) -> None:  # noqa: ANN401
    """Each answer says what is wrong; none is an error of the server."""
    well = {"action": "hold", "name": "mail", "reason": "x", "version": 0}
    edit = {**well, "action": "edit", "which": {"ids": ["x"]}}
    bodies = [
        {**well, "reason": "  "},
        {**well, "reason": "x" * 1001},
        {**well, "seconds": 0},
        {**well, "version": "newest"},
        {**well, "unknown": 1},
        {**well, "action": "explode"},
        {**well, "action": "breaker explode"},
        {**well, "name": "nobody"},
        {**well, "action": "breaker open", "name": "nobody"},
        {**well, "action": "replay"},
        {**well, "action": "replay", "which": {"ids": []}},
        {**well, "action": "replay", "which": {"ids": ["x"] * 201}},
        {**well, "action": "replay", "which": {"dependency": "x" * 256}},
        {**well, "action": "replay", "which": {"task": ""}},
        {**well, "action": "replay", "which": {"fingerprint": 1}},
        {**well, "action": "replay", "which": {"id": "x"}},
        {**well, "action": "replay", "which": {"died_by": 1.0}},
        {**edit, "edited": {"args": {}, "kwargs": {}}},
        [],
    ]
    texts = [json.dumps(one) for one in bodies]
    texts += [json.dumps({**edit, "edited": {"args": [], "kwargs": {"a": [math.inf]}}})]
    texts += [json.dumps({**edit, "edited": {"args": [math.nan], "kwargs": {}}}), "", "{", "NaN"]
    head = {"Content-Type": "application/json"}
    asks = [Ask("/act", "POST", auth=PASSWORD, headers=head, content=one) for one in texts]
    found = answers(make_app, asks, **ANN)
    assert codes(found) == [400] * len(texts)
    errors = [one.json()["error"] for one in found]
    assert all(len(one) > 10 and not one.startswith(":") for one in errors)


def test_letter_with_numbers_that_json_does_not_know_is_shown(make_app: Any) -> None:  # noqa: ANN401
    """They are text there, so such a letter can be replayed, but not edited."""
    ledger = Resilience.of(make_app()).ledger
    message = json.dumps({"args": [math.nan, 1], "kwargs": {"a": -math.inf}, "headers": {}})
    job = Job(id="1", task="send", dependency="mail", queue="mail", message=message)
    ledger.bury(job, reason="bug", error=TypeError("x"))
    ledger.close()
    [found] = answers(make_app, [Ask("/letters")])
    [letter] = found.json(parse_constant=pytest.fail)["letters"]
    assert letter["editable"] is False
    assert (letter["args"], letter["kwargs"]) == ("[nan, 1]", "{'a': -inf}")


@pytest.mark.parametrize("hours", ["nan", "inf", "0", "-1", "soon"])
def test_post_mortem_of_no_time_is_refused(make_app: Any, hours: str) -> None:  # noqa: ANN401
    """A request that makes no sense is no empty report."""
    asked = [Ask(f"/post-mortem.md?hours={hours}"), Ask("/post-mortem.md?hours=2")]
    assert codes(answers(make_app, asked)) == [400, 200]


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 20_000_000])
def test_long_body_is_refused(make_app: Any, size: int) -> None:  # noqa: ANN401
    """So it is however long it is; what comes after it on the connection is answered."""
    head = {"Content-Type": "application/json"}
    order = Ask("/act", "POST", auth=PASSWORD, headers=head, content="[" * size)
    found = answers(make_app, [order, Ask("/data", auth=PASSWORD)], **ANN)
    assert codes(found) == [413, 200]


@pytest.mark.parametrize("path", [*READS, "/act", "/static/degradation.js"])
def test_handler_keeps_little_of_a_long_body(path: str) -> None:
    """Twenty megabytes may come to any handler, and none needs them in memory."""
    [kind] = [one.handler_class for one in ROUTES if one.regex.match(f"/degradation{path}")]
    handler = kind.__new__(kind)
    handler.prepare()
    for _ in range(2_000):
        handler.data_received(b"[" * 10_000)
    assert len(handler.body) <= BODY_BYTES_MAX + 10_000


def test_error_repeats_little_of_an_order(make_app: Any) -> None:  # noqa: ANN401
    """Thousands of unknown fields do not come back."""
    order = json.dumps({f"k{i}": i for i in range(50_000)})
    head = {"Content-Type": "application/json"}
    [found] = answers(
        make_app, [Ask("/act", "POST", auth=PASSWORD, headers=head, content=order)], **ANN
    )
    assert found.status_code == 400
    assert len(found.content) < 2_000
