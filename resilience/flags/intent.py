"""Orders that follow the flags of an OpenFeature provider."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from resilience.events import Event, FeatureOrdered, FlagProviderFailed
from resilience.flags.document import Document, State
from resilience.flags.feature import Feature
from resilience.flags.flags import Flags
from resilience.flags.orders import Edit, order_edit

if TYPE_CHECKING:
    from openfeature.provider import FeatureProvider

REASON = "as the provider says that the app follows"
FOLLOW_SECONDS = 300.0
"""How long an order that follows a provider is in force. It is renewed at half of that."""
ASK_SECONDS = 0.2
"""How long a look waits for the provider; a later answer is used by the next look."""
SILENT: tuple[str, Mapping[str, State], str] = ("", {}, f"no answer within {ASK_SECONDS:g} s")
"""What a look finds while the provider has not answered: actor, orders and error."""
RETRY_SECONDS = 10.0
"""How long a provider that raised is left alone."""


class FollowProvider:
    """Makes orders of what an OpenFeature provider says about the declared features.

    For `Resilience(app, …, intent=FollowProvider(…))`. One worker of the fleet asks the provider
    once a second, in its main process. A flag that differs from the feature's default is an order
    to switch the feature on or off. One that equals it is no order: the controller may shed the
    feature. A person's order wins for as long as it is in force.

    A provider that raises, hangs or does not know a flag orders nothing. Its last order stays in
    force until it ends, between half and all of `FOLLOW_SECONDS` later.
    """

    def __init__(self, provider: "FeatureProvider | str") -> None:
        """Follow *provider*; asks nothing yet.

        Args:
            provider: An OpenFeature provider, which is set up by the worker that asks it; or the
                domain of one that the app sets itself.
        """
        self._provider = provider
        own = f"{type(provider).__name__}.{id(self)}"
        self._domain = provider if isinstance(provider, str) else own
        self._asking: threading.Thread | None = None
        self._said = SILENT
        self._failing = False

    def look(self, flags: Flags, announce: Callable[[Event], None]) -> None:
        """Ask the provider and change the orders; waits at most `ASK_SECONDS` for the provider.

        Raises:
            StoreUnavailableError: The orders did not reach the fleet; the next look gives them.
        """
        if self._asking is None or not self._asking.is_alive():
            ask = threading.Thread(target=self._ask, args=[flags.features], daemon=True)
            self._asking = ask
            ask.start()
            ask.join(ASK_SECONDS)
        # An answer counts once: a provider that hangs renews nothing.
        actor, answers, error = self._said
        self._said = SILENT
        if error and not self._failing:
            announce(FlagProviderFailed(provider=self._domain, error=error))
        # An answer to an earlier look does not mend it: the provider is still late.
        self._failing = bool(error) or self._asking.is_alive()
        if not answers:
            return
        before = flags.document.orders
        for name, order in flags.change(follow_edit(answers, actor)).orders.items():
            if order.actor == actor and (name not in before or before[name].state != order.state):
                told = order.model_dump(include={"until", "actor", "reason"})
                announce(FeatureOrdered(feature=name, order=order.said, **told))

    def _ask(self, features: Mapping[str, Feature]) -> None:
        orders: dict[str, State] = {}
        error = ""
        try:
            from openfeature import api  # noqa: PLC0415 - an extra, for the worker that asks

            if not isinstance(self._provider, str):
                api.set_provider_and_wait(self._provider, self._domain)
                self._provider = self._domain  # which is set up now
            client = api.get_client(self._domain)
            actor = f"OpenFeature {client.provider.get_metadata().name}"
            for name, one in features.items():
                said = client.get_boolean_details(name, one.default)
                if said.error_code is None:
                    on: State = "on" if said.value else "off"
                    orders[name] = "auto" if said.value == one.default else on
                elif said.error_code != "FLAG_NOT_FOUND":
                    error = f"{name}: {said.error_code} {said.error_message}"
            self._said = actor, orders, error
        except Exception as failure:  # noqa: BLE001 - whatever a provider raises
            self._said = "", {}, repr(failure)
            threading.Event().wait(RETRY_SECONDS)


def follow_edit(orders: Mapping[str, State], actor: str) -> Edit:
    """Return what makes the orders of *actor* be *orders*, by feature.

    The edit leaves alone what is ordered already and does not end soon, and what others ordered.
    """

    def edit(now: Document, time: float) -> Document | None:
        made = None
        for name, wanted in orders.items():
            order = now.orders.get(name)
            left = 0.0 if order is None or order.state == "auto" else order.until - time
            state = order.state if order is not None and left > 0 else "auto"
            if order is not None and left > 0 and order.actor != actor:
                continue
            if wanted != state or 0 < left < FOLLOW_SECONDS / 2:
                change = order_edit(name, wanted, FOLLOW_SECONDS, actor, REASON, kept=False)
                made = change(made or now, time)
        return made

    return edit
