"""The page, what it polls, and what it orders, under Flower's own rules."""

import json
import math
from base64 import b64decode
from pathlib import Path
from typing import Any

from flower.api import BaseApiHandler  # type: ignore[import-untyped]
from flower.views import BaseHandler  # type: ignore[import-untyped]
from pydantic import ValidationError
from tornado.web import HTTPError, StaticFileHandler, authenticated, url

from resilience.errors import ConfigurationError, OrderConflictError, ResilienceError, text_of
from resilience.events.plain import shortened
from resilience.ledger import Which
from resilience.monitor.flower.actions import Order, act
from resilience.monitor.flower.timeline import post_mortem, timeline
from resilience.text import hide

HOME = "/degradation"
STATIC = Path(__file__).parent / "static"
POLICY = "default-src 'self'; frame-ancestors 'self'"
SHOWN = 50
"""Dead letters on the page at once."""
BODY_BYTES_MAX = 1_048_576
"""Of a request: an order may hold the new arguments of a letter."""


class Bounded:
    """Keeps no more of a request than an order can be long; Tornado would keep 100 MB."""

    _stream_request_body = True  # what the decorator of Tornado sets, which takes no mixin

    def prepare(self) -> None:
        """Begin to read. What is refused is refused when all was read, else no answer arrives."""
        self.body = bytearray()

    def data_received(self, chunk: bytes) -> None:
        """Keep what has come of the body, unless it is too long anyway."""
        if len(self.body) <= BODY_BYTES_MAX:
            self.body += chunk


class Files(Bounded, StaticFileHandler):
    """What the page loads."""


class Answering(Bounded, BaseHandler):  # type: ignore[misc] # Flower has no types
    """Answers with JSON, and asks the store and the ledger in other threads."""

    async def answer(self, function: Any, *arguments: Any) -> None:  # noqa: ANN401 - as given
        """Answer with what *function* returns, or with the error that it raises."""
        loop, executor = self.application.io_loop, self.application.executor
        try:
            values = await loop.run_in_executor(executor, function, *arguments)
        except ResilienceError as error:
            codes = {OrderConflictError: 409, ConfigurationError: 400}
            self.set_status(codes.get(type(error), 503))
            values = {"error": text_of(error)}
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self.write(json.dumps(hide(values), allow_nan=False))


class Page(Answering):
    """The page itself; all that is on it comes from `Data`."""

    @authenticated
    async def get(self) -> None:
        """Answer with the page, to which nothing may belong that is no file of this server."""
        self.set_header("Content-Security-Policy", POLICY)
        self.render("degradation.html")


class Data(Answering):
    """What the page shows."""

    @authenticated
    async def get(self) -> None:
        """Answer with what is known, and why nothing can be ordered if so."""
        options = self.application.options
        why = "Flower is read-only" if options.read_only else ""
        if not (options.basic_auth or options.auth or self.unauthenticated_api):
            why = "Flower knows no users: see its options basic_auth and auth"
        shown = await self.application.view.read()
        replays = self.application.letters.progress()
        await self.answer(lambda: shown | {"no_actions": why, "replays": replays})


class Letters(Answering):
    """Dead letters that match a filter."""

    @authenticated
    async def get(self) -> None:
        """Answer with the first of them, how many there are, and what an order must name."""
        names = ("dependency", "task", "fingerprint")
        chosen = {name: self.get_argument(name, None, escape=False) or None for name in names}
        await self.answer(self.application.letters.find, Which(**chosen), SHOWN)


class PostMortem(Answering):
    """The timeline of the last hours, as Markdown."""

    @authenticated
    async def get(self) -> None:
        """Answer with a file.

        Raises:
            HTTPError: `hours` is no number of hours, more than 0.
        """
        hours = self.get_argument("hours", 24.0, type=float)
        if not 0 < hours < math.inf:
            raise HTTPError(400, f"hours={hours}: give a number of hours, more than 0")
        shown = await self.application.view.read()
        entries = timeline(self.application.events.state.incidents, shown["audited"])
        late = [one for one in entries if one["at"] >= shown["now"] - hours * 3600]
        self.set_header("Content-Type", "text/markdown; charset=UTF-8")
        self.set_header("Content-Disposition", 'attachment; filename="post-mortem.md"')
        self.write(post_mortem(shown, late, str(self.application.capp.main)))


class Act(Answering, BaseApiHandler):  # type: ignore[misc] # Flower has no types
    """Whatever somebody orders. Flower asks for authentication, unless told not to."""

    def _check(self) -> None:
        """Refuse who may not, as Flower's own API does.

        Raises:
            HTTPError: Flower is read-only, nobody is authenticated, the order is too long, or it is
                no JSON: a form of another site can send anything else.
        """
        BaseApiHandler.prepare(self)
        if self.application.options.read_only:
            raise HTTPError(403, "Read only mode is enabled")
        kind = self.request.headers.get("Content-Type", "")
        if not kind.startswith("application/json"):
            raise HTTPError(415, "Orders are JSON")
        if len(self.body) > BODY_BYTES_MAX:
            raise HTTPError(413, f"An order may have {BODY_BYTES_MAX} bytes")

    @authenticated
    async def post(self) -> None:
        """Carry out an order, and answer with what became of it."""
        self._check()
        await self.answer(self._act, self._actor())
        self.application.view.outdate()

    def _act(self, actor: str) -> dict[str, str]:
        try:
            order = Order.model_validate_json(bytes(self.body))
        except ValidationError as error:
            faults = (": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors())
            raise ConfigurationError(shortened("; ".join(faults))) from error
        return act(self.application.adopted, self.application.letters, order, actor)

    def _actor(self) -> str:
        """Return who orders: the user of OAuth or basic auth, else where the request came from."""
        if isinstance(self.current_user, str):
            return self.current_user
        if self.application.options.basic_auth:
            coded = self.request.headers["Authorization"].split()[1]
            return b64decode(coded).decode().partition(":")[0]
        return f"somebody at {self.request.remote_ip}"


ROUTES = [
    url(HOME, Page, name="degradation"),
    url(rf"{HOME}/data", Data),
    url(rf"{HOME}/letters", Letters),
    url(rf"{HOME}/act", Act),
    url(rf"{HOME}/post-mortem\.md", PostMortem, name="degradation-post-mortem"),
    url(rf"{HOME}/static/(.*)", Files, {"path": str(STATIC)}, "degradation-static"),
]
