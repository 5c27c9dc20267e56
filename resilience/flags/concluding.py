"""Ends trials that are over, or that do harm, for the whole fleet."""

from resilience.events import TrialEnded
from resilience.flags.document import Document
from resilience.flags.flags import Flags
from resilience.flags.trial import SEND_SECONDS, judge


def conclude_trials(flags: Flags, now: float) -> list[TrialEnded]:
    """End the trials that are to end at fleet time *now*, and return what to announce of each.

    What a trial found is written into the document; the trial is forgotten.

    Raises:
        StoreUnavailableError: The store does not answer; the next call ends them.
    """
    ended = []
    for name, plan in flags.document.trials.items():
        over = now >= plan.until + 2 * SEND_SECONDS  # the last samples are in
        verdict = judge(flags.counted(plan), now, over=over)
        if verdict is None:
            continue
        cost = verdict.cost

        def edit(document: Document, _: float, name: str = name, cost: object = cost) -> Document:
            trials = {key: one for key, one in document.trials.items() if key != name}
            costs = {**document.costs, **({name: cost} if cost else {})}
            return document.model_copy(update={"trials": trials, "costs": costs})

        flags.change(edit)
        told = plan.model_dump(include={"actor", "reason"})
        told |= cost.model_dump(include={"seconds", "low", "high"}) if cost else {}
        ended.append(
            TrialEnded(feature=name, conclusion=verdict.conclusion, calls=verdict.calls, **told)
        )
    return ended
