"""What takes a part's place in its fan-out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from celery import Task
from celery.canvas import _chain, chord, group
from celery.exceptions import Ignore

from resilience.errors import ConfigurationError
from resilience.store import Slot
from resilience.tasks.envelope import slot_header


class Replaced(Ignore):
    """Another signature took the task's place and its id; that one will report."""


def with_body(sig: Any) -> Any:  # noqa: ANN401 - any canvas
    """Return *sig* with one task at its end, as Celery itself would replace it."""
    last = sig.tasks[-1] if isinstance(sig, _chain) else sig
    return sig | sig.app.tasks["celery.accumulate"].s(index=0) if isinstance(last, group) else sig


def hand_over(sig: Any, slot: Slot, kind: type[Task[Any, Any]]) -> None:  # noqa: ANN401 - any canvas
    """Let the last task of *sig* report its value to *slot*, and each of them its failure.

    Raises:
        ConfigurationError: The last one is not of *kind*, the class that reports.
    """
    before: Sequence[Any]
    if isinstance(sig, _chain):
        *before, last = sig.tasks
    elif isinstance(sig, chord):
        before, last = sig.tasks, sig.body
    elif isinstance(sig, group):
        before, last = sig.tasks, None
    else:
        if slot.last and not isinstance(sig.type, kind):
            msg = f"{sig.task} cannot replace part {slot.part!r}: it is no ResilientTask"
            raise ConfigurationError(msg)
        sig.set(headers={**(sig.options.get("headers") or {}), **slot_header(slot)})
        return
    for one in before:
        hand_over(one, dataclasses.replace(slot, last=False), kind)
    if last is not None:
        hand_over(last, slot, kind)
