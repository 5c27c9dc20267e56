"""The page, what it polls, and what it orders, under Flower's own rules."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

from flower.api import BaseApiHandler  # type: ignore[import-untyped]
from flower.views import BaseHandler  # type: ignore[import-untyped]
from pydantic import ValidationError
from tornado.web import HTTPError, StaticFileHandler, authenticated, url

from resilience.errors import ConfigurationError, OrderConflictError, ResilienceError, text_of
from resilience.ledger import Which
from resilience.monitor.flower.actions import Order, act
from resilience.monitor.flower.timeline import post_mortem, timeline

POLICY = "default-src 'self'; frame-ancestors 'self'"
SHOWN = 50
"""Dead letters on the page at once."""


class Page(BaseHandler):  # type: ignore[misc] # Flower has no types
    """The page itself; all that is on it comes from `Data`."""

    def set_default_headers(self) -> None:
        """Allow nothing that is not a file of this server."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")

    @authenticated
    async def get(self) -> None:
        """Answer with the page."""
        self.render("degradation.html")

    def answer(self, found: Any) -> None:  # noqa: ANN401 - JSON
        """Answer with *found* as JSON."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(json.dumps(found, allow_nan=False, default=str))

    async def run(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - as given
        """Return what *function* returns in another thread; an error of ours becomes an answer."""
        application = self.application
        try:
            return await application.io_loop.run_in_executor(
                application.executor, function, *arguments
            )
        except (OrderConflictError, ConfigurationError, ResilienceError) as error:
            code = 503
            if isinstance(error, OrderConflictError | ConfigurationError):
                code = 409 if isinstance(error, OrderConflictError) else 400
            self.set_status(code)
            return {"error": text_of(error)}


class Data(Page):
    """What the page shows, as JSON."""

    @authenticated
    async def get(self) -> None:
        """Answer with what is known."""
        options = self.application.options
        found = await self.application.view.read()
        known = bool(options.basic_auth or options.auth or self.unauthenticated_api)
        why = "Flower is read-only" if options.read_only else ""
        if not known:
            why = "nobody is authenticated: see --basic-auth or FLOWER_UNAUTHENTICATED_API"
        self.answer(found | {"no_actions": why, "replays": self.application.desk.progress()})


class Letters(Page):
    """Dead letters that match a filter, or one of them, as JSON."""

    @authenticated
    async def get(self) -> None:
        """Answer with the first of them, how many there are, and what an order must name."""
        names = ("id", "dependency", "task", "fingerprint")
        chosen = {name: self.get_argument(name, None, escape=False) or None for name in names}
        self.answer(await self.run(self.application.desk.find, Which(**chosen), SHOWN))


class PostMortem(Page):
    """The timeline, as Markdown."""

    @authenticated
    async def get(self) -> None:
        """Answer with a file."""
        hours = self.get_argument("hours", 24.0, type=float)
        view, application = await self.application.view.read(), self.application
        entries = timeline(application.events.state.incidents, view.get("audited", ()))
        entries = [one for one in entries if one["at"] >= view["now"] - hours * 3600]
        self.set_header("Content-Type", "text/markdown; charset=UTF-8")
        self.set_header("Content-Disposition", 'attachment; filename="post-mortem.md"')
        self.write(post_mortem(view, entries, str(application.capp.main)))


class Act(Page, BaseApiHandler):  # type: ignore[misc] # Flower has no types
    """Whatever somebody orders. Flower asks for authentication, unless told not to."""

    def prepare(self) -> None:
        """Refuse who may not, as Flower's own API does.

        Raises:
            HTTPError: Flower is read-only, nobody is authenticated, or it is no JSON: a form of
                another site can send anything else.
        """
        BaseApiHandler.prepare(self)
        if self.application.options.read_only:
            raise HTTPError(403, "Read only mode is enabled")
        kind = self.request.headers.get("Content-Type", "")
        if self.request.method == "POST" and not kind.startswith("application/json"):
            raise HTTPError(415, "orders are JSON")

    def get(self) -> None:  # type: ignore[override]
        """Refuse: an order is no link.

        Raises:
            HTTPError: Always.
        """
        raise HTTPError(405)

    @authenticated
    async def post(self) -> None:
        """Carry out an order, and answer with what became of it."""
        try:
            order = Order.model_validate_json(self.request.body)
        except ValidationError as error:
            self.set_status(400)
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            self.answer({"error": said})
            return
        self.answer(await self.run(act, self.application, order, self._actor()))

    def _actor(self) -> str:
        """Return who orders: the user of OAuth or basic auth, else where the request came from."""
        user = self.current_user
        if isinstance(user, str):
            return user
        if self.application.options.basic_auth:
            coded = self.request.headers["Authorization"].split()[1]
            return b64decode(coded).decode().partition(":")[0]
        return f"somebody at {self.request.remote_ip}"


ROUTES = [
    url(r"/degradation", Page, name="degradation"),
    url(r"/degradation/data", Data, name="degradation-data"),
    url(r"/degradation/letters", Letters, name="degradation-letters"),
    url(r"/degradation/act", Act, name="degradation-act"),
    url(r"/degradation/post-mortem\.md", PostMortem, name="degradation-post-mortem"),
    url(
        r"/degradation/static/(.*)",
        StaticFileHandler,
        {"path": str(Path(__file__).parent / "static")},
        name="degradation-static",
    ),
]
