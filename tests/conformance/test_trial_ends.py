"""How a trial ends in a fleet: once, whoever notices, and no other trial with it."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from resilience import Dependency, Feature, Level, Resilience, Settings
from resilience.events import Event, TrialEnded
from resilience.flags.document import TrialPlan
from resilience.testing.valkey import ValkeyProcess
from resilience.worker.shedding import conclude_trials

WHO: dict[str, Any] = {"actor": "ann", "reason": "drill"}
NAME = "ranking"


class Fleet:
    """Two workers that lead one after the other, and what they announce."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self._url, self._namespace = url, uuid4().hex
        self.first, self.second = self._worker(), self._worker()

    def _worker(self) -> Resilience:
        app: Celery = Celery("trials", broker="memory://", set_as_current=False)
        return Resilience(
            app,
            dependencies=[Dependency("search")],
            features=[Feature(NAME, level=Level.REDUCED, depends_on=("search",))],
            settings=Settings(
                store_url=self._url, namespace=self._namespace, store_timeout_seconds=10.0
            ),
            listeners=[self.events.append],
        )

    def begin(self) -> TrialPlan:
        """Begin a trial that has been over for long, and let both workers know it."""
        now = self.first.fleet_time()
        plan = TrialPlan(id=uuid4().hex, share=0.1, began=now - 600, until=now - 300, **WHO)
        self.first.flags.change(
            lambda document, _: document.model_copy(update={"trials": {NAME: plan}})
        )
        self.second.pulse.refresh()
        assert self.second.flags.document.trials == {NAME: plan}
        return plan

    def ended(self) -> list[str]:
        """Return the features whose trials were announced to have ended."""
        return [one.feature for one in self.events if isinstance(one, TrialEnded)]

    def agreed(self) -> dict[str, TrialPlan]:
        """Return the trials that the fleet knows."""
        return dict(self.second.flags.change(lambda *_: None).trials)


@pytest.fixture
def fleet(valkey: ValkeyProcess) -> Iterator[Fleet]:
    """Two workers that meet in a real store."""
    made = Fleet(valkey.url)
    yield made
    for one in (made.first, made.second):
        one.store.client.close()
        one.app.close()


def conclude_late(fleet: Fleet, patch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Let the second worker conclude what it knows; *meanwhile* happens after it has looked."""
    flags = fleet.second.flags
    counted = flags.counted

    def count_and_wait(plan: TrialPlan) -> Any:  # noqa: ANN401 - as `counted`
        found = counted(plan)
        meanwhile()
        return found

    patch.setattr(flags, "counted", count_and_wait)
    conclude_trials(fleet.second, ())


def test_end_is_announced_once_when_the_leader_changes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that looked just before another one concluded the trial says nothing."""
    fleet.begin()

    conclude_late(fleet, monkeypatch, lambda: conclude_trials(fleet.first, ()))
    conclude_trials(fleet.first, ())

    assert fleet.ended() == [NAME]
    assert fleet.agreed() == {}


def test_end_of_a_trial_leaves_one_that_was_begun_meanwhile(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new trial goes on, and nobody is told that a trial of the feature has ended."""
    fleet.begin()
    begun: list[TrialPlan] = []

    conclude_late(
        fleet,
        monkeypatch,
        lambda: begun.append(fleet.first.flags.start_trial(NAME, seconds=600.0, **WHO)),
    )

    assert fleet.ended() == []
    assert fleet.agreed() == {NAME: begun[0]}


def test_trial_that_is_stopped_again_has_ended_when_it_was_stopped_first(fleet: Fleet) -> None:
    """Else a command that is repeated would put off the end that it asks for."""
    flags = fleet.first.flags
    flags.start_trial(NAME, seconds=600.0, **WHO)

    flags.stop_trial(NAME)
    stopped = fleet.agreed()
    flags.stop_trial(NAME)
    fleet.second.flags.stop_trial(NAME)

    assert stopped[NAME].until < stopped[NAME].began + 600.0
    assert fleet.agreed() == stopped
