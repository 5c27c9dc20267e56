"""An OpenFeature provider whose flags the app follows: what becomes an order, and what does not."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal
from uuid import uuid4

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ProviderFatalError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from resilience import Dependency, FollowProvider
from resilience.clock import SystemClock
from resilience.errors import StoreUnavailableError
from resilience.events import Event, FeatureOrdered, FlagProviderFailed
from resilience.flags import Feature, Features, Flags, Source, intent
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

FOLLOW_SECONDS = 300.0

FEATURES = Features(
    [
        Feature("ranking", level=Level.REDUCED),
        Feature("spelling", level=Level.STALE),
        Feature("beta", level=Level.REDUCED, default=False),
    ],
    [Dependency("search")],
)
NAME = "OpenFeature In-Memory Provider"
WHO = {"actor": "ann", "reason": "sale"}


class Provider(InMemoryProvider):
    """The SDK's own, whose flags a test changes."""

    def __init__(self, **flags: object) -> None:
        super().__init__({})
        self.initialised: list[int] = []
        self.set(**flags)

    def set(self, **flags: object) -> None:
        """Give *flags* these values, and no others."""
        self._flags = {name: InMemoryFlag("is", {"is": on}) for name, on in flags.items()}

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Note it."""
        assert evaluation_context is not None
        self.initialised.append(threading.get_ident())


class Broken(Provider):
    """Does something instead of answering, if there is something to do."""

    does: Callable[[], Any] | None = None

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """Answer, or not."""
        if self.does is not None:
            return FlagResolutionDetails(self.does(), reason=Reason.STATIC)
        return super().resolve_boolean_details(flag_key, default_value, evaluation_context)


class Leader:
    """The worker that asks."""

    def __init__(self, flags: Flags, provider: Any) -> None:  # noqa: ANN401 - or a domain
        self.said: list[Event] = []
        self.flags = flags
        self.follow = FollowProvider(provider)

    def looks(self) -> dict[str, bool]:
        """Look, and return what is on."""
        self.follow.look(self.flags, self.said.append)
        return {name: self.flags.enabled(name) for name in FEATURES}

    def told(self) -> list[tuple[str, str]]:
        """Return the orders that were announced, and forget them."""
        told = [(one.feature, one.order) for one in self.said if isinstance(one, FeatureOrdered)]
        self.said.clear()
        return told


@pytest.fixture
def flags(valkey: ValkeyProcess) -> Iterator[Flags]:
    """The flags of an app, in a process of the fleet."""
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=10.0)
    yield Flags(FEATURES, Pulse(StoreFleet(store)), FlagStore(store))
    store.client.close()
    api.shutdown()


DEFAULTS = {"ranking": True, "spelling": True, "beta": False}


def test_flag_that_differs_from_the_default_is_an_order(flags: Flags) -> None:
    """It names the provider, and is announced once however often the provider is asked."""
    provider = Provider(ranking=False, spelling=True, beta=True)
    leader = Leader(flags, provider)
    versions = set()
    for _ in range(3):
        assert leader.looks() == {"ranking": False, "spelling": True, "beta": True}
        versions.add(flags.version)
    assert leader.told() == [("ranking", "off"), ("beta", "on")]
    order = flags.document.orders["ranking"]
    assert (order.actor, order.reason) == (NAME, "as the provider says that the app follows")
    assert order.until - order.at == pytest.approx(FOLLOW_SECONDS)
    assert versions == {order.version}  # both in one step, and nothing since


def test_flag_as_declared_is_no_order_so_that_the_controller_may_shed(flags: Flags) -> None:
    """A provider that says `on`, as always, keeps no feature from being shed."""
    leader = Leader(flags, Provider(ranking=True, spelling=True, beta=False))
    assert leader.looks() == DEFAULTS
    assert (flags.document.orders, flags.version) == ({}, -1)  # nothing was written
    flags.brownout(Level.REDUCED, seconds=60, **WHO)
    assert not leader.looks()["ranking"]
    assert flags.decide("ranking").source is Source.BROWNOUT


def test_flag_that_goes_back_ends_its_order_at_once(flags: Flags) -> None:
    """Nobody waits for the order's end."""
    provider = Provider(ranking=False)
    leader = Leader(flags, provider)
    assert not leader.looks()["ranking"]
    provider.set(ranking=True)
    assert leader.looks() == DEFAULTS
    assert leader.told() == [("ranking", "off"), ("ranking", "auto")]


@pytest.mark.parametrize("state", ["on", "off"])
def test_order_of_a_person_wins_until_it_ends(flags: Flags, state: Literal["on", "off"]) -> None:
    """Given before the provider's or after it; then the provider's is in force again."""
    leader = Leader(flags, Provider(ranking=False, beta=True))
    flags.order("beta", state, seconds=60, **WHO)
    assert leader.looks()["beta"] == (state == "on")
    flags.order("ranking", state, seconds=60, **WHO)
    for _ in range(2):
        found = leader.looks()
        assert (found["ranking"], found["beta"]) == (state == "on", state == "on")
    flags.order("ranking", state, seconds=0.2, **WHO)
    wait_until(lambda: flags.decide("ranking").source is Source.DEFAULT, 2, "it ended")
    assert not leader.looks()["ranking"]
    assert flags.decide("ranking").reason == "as the provider says that the app follows"
    flags.order("beta", "auto", **WHO)
    assert leader.looks()["beta"]


def raising() -> bool:
    """Raise, as no provider should."""
    msg = "boom"
    raise RuntimeError(msg)


@pytest.mark.parametrize(
    "does",
    [raising, lambda: "off", lambda: None, lambda: 0],
    ids=["raises", "text", "none", "zero"],
)
def test_provider_that_errs_or_mistakes_types_leaves_the_last_order(
    flags: Flags, does: Callable[[], Any]
) -> None:
    """It is announced once, until it has answered again."""
    provider = Broken(ranking=False)
    leader = Leader(flags, provider)
    assert not leader.looks()["ranking"]
    version = flags.version
    for _ in range(2):
        leader.said.clear()
        provider.does = does
        for _ in range(3):
            assert not leader.looks()["ranking"]
        assert [type(one) for one in leader.said] == [FlagProviderFailed]
        assert "Broken" in str(leader.said)
        provider.does = None
        leader.looks()
    assert flags.version == version


def test_provider_that_hangs_keeps_nobody_waiting_and_renews_nothing(flags: Flags) -> None:
    """Each look returns soon, asks no second time meanwhile, and leaves the last order."""
    release, asked = threading.Event(), []

    def hang() -> bool:
        asked.append(1)
        release.wait(60)
        return True

    provider = Broken(ranking=False)
    leader = Leader(flags, provider)
    assert not leader.looks()["ranking"]
    version, provider.does, began = flags.version, hang, SystemClock.monotonic()
    for _ in range(3):
        assert not leader.looks()["ranking"]
    assert SystemClock.monotonic() - began < 5
    assert (len(asked), flags.version) == (1, version)
    assert [type(one) for one in leader.said] == [FeatureOrdered, FlagProviderFailed]
    provider.does = None
    provider.set(ranking=True)
    release.set()
    wait_until(lambda: leader.looks()["ranking"], 5, "what it says in the end is followed")


def test_provider_that_is_always_late_is_announced_once(
    flags: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer comes after the look that asked for it, and the next look follows it."""
    monkeypatch.setattr(intent, "ASK_SECONDS", 0.05)
    answer = threading.Event()
    provider = Broken()
    provider.does = lambda: not answer.wait(60)
    leader = Leader(flags, provider)
    for _ in range(3):
        assert leader.looks() is not None  # nothing has come yet
        answer.set()
        asking = leader.follow._asking  # noqa: SLF001 - nobody else knows when it ends
        assert asking is not None
        asking.join(5)
        answer.clear()
        assert not leader.looks()["ranking"]
    failed = [one for one in leader.said if isinstance(one, FlagProviderFailed)]
    assert failed == leader.said[:1]
    answer.set()


def test_provider_that_cannot_be_set_up_is_tried_again(
    flags: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is announced once, and the looks go on."""
    monkeypatch.setattr(intent, "RETRY_SECONDS", 0.05)

    class Fatal(Provider):
        fails = True

        def initialize(self, evaluation_context: EvaluationContext) -> None:
            super().initialize(evaluation_context)
            if self.fails:
                msg = "bad key"
                raise ProviderFatalError(msg)

    provider = Fatal(ranking=False)
    leader = Leader(flags, provider)
    wait_until(lambda: leader.looks() and len(provider.initialised) > 2, 5, "tried again")
    assert leader.looks() == DEFAULTS
    assert [type(one) for one in leader.said] == [FlagProviderFailed]
    provider.fails = False
    wait_until(lambda: not leader.looks()["ranking"], 5, "it is followed")


def test_provider_that_raised_is_left_alone_for_a_while(
    flags: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that come soon after do not ask it: what is down is not hammered."""
    monkeypatch.setattr(intent, "RETRY_SECONDS", 60.0)

    class Down(Provider):
        def initialize(self, evaluation_context: EvaluationContext) -> None:
            super().initialize(evaluation_context)
            msg = "down"
            raise ProviderFatalError(msg)

    provider = Down()
    leader = Leader(flags, provider)
    wait_until(lambda: leader.looks() and provider.initialised, 10, "it was asked")
    for _ in range(5):
        assert leader.looks() == DEFAULTS
    assert len(provider.initialised) == 1


def test_provider_is_set_up_once_by_whom_it_is_asked(flags: Flags) -> None:
    """Not when the app is declared, as children of that process would inherit it."""
    provider = Provider(ranking=False)
    leader = Leader(flags, provider)
    assert provider.initialised == []
    for _ in range(3):
        leader.looks()
    assert len(provider.initialised) == 1
    default = api.get_client().provider
    assert default is not provider  # the app's own clients ask whom they asked before


def test_provider_of_the_app_is_followed_by_its_domain(flags: Flags) -> None:
    """It is asked, and not set up again."""
    provider = Provider(ranking=False)
    api.set_provider_and_wait(provider, "vendor")
    leader = Leader(flags, "vendor")
    assert not leader.looks()["ranking"]
    assert len(provider.initialised) == 1


def test_flag_that_the_provider_does_not_know_is_no_order_and_no_error(flags: Flags) -> None:
    """A provider may have some of the features only."""
    leader = Leader(flags, Provider(spelling=False))
    assert leader.looks() == {**DEFAULTS, "spelling": False}
    assert leader.told() == [("spelling", "off")]


def test_lost_store_is_an_error_and_the_next_look_gives_the_order(
    flags: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is taken for given that did not reach the fleet."""
    leader = Leader(flags, Provider(ranking=False))

    def down(*_: object) -> bool:
        msg = "down"
        raise StoreUnavailableError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(FlagStore, "swap", down)
        with pytest.raises(StoreUnavailableError):
            leader.looks()
    assert not leader.looks()["ranking"]
    assert leader.told() == [("ranking", "off")]
