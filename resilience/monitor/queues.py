"""What the broker knows of queues: how much waits there, for how long, and who takes it."""

import math
import threading
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from kombu.utils.json import loads

from resilience.monitor.rows import queues_of
from resilience.tasks.admission import depth_of
from resilience.tasks.envelope import BUDGET_HEADER, header
from resilience.tasks.resilience import Resilience

WORKERS_SECONDS = 1.0
"""Workers have so long to answer what they consume."""


class Queues:
    """Asks the broker, and workers where only they know.

    Attributes:
        depths: Messages by queue.
        waits: Seconds that the next job of a queue has waited; None: nobody knows.
        consumers: Workers by queue, of those that were counted.
    """

    def __init__(self, adopted: Resilience, *, ask_workers: bool) -> None:
        """Know nothing yet."""
        self._adopted = adopted
        self._ask_workers = ask_workers
        self.depths: dict[str, int] = {}
        self.waits: dict[str, float | None] = {}
        self.consumers: dict[str, int] = {}

    def ask(self, given_up: threading.Event) -> None:
        """Ask, unless nobody waits for the answer any longer."""
        app = self._adopted.app
        with app.producer_or_acquire(None) as producer:
            for name in queues_of(self._adopted):
                if given_up.is_set():
                    return
                depth = self.depths[name] = depth_of(app, producer, name)
                if depth:
                    self._look_at(producer.channel, app.amqp.queues[name].name, name)
        if self.waits and not self.consumers and self._ask_workers:
            self._count_workers(self.waits)

    def _look_at(self, channel: Any, queue: str, name: str) -> None:  # noqa: ANN401 - kombu's
        """Learn what the broker knows of a queue in which jobs wait."""
        if hasattr(channel, "next_in"):  # Redis
            self.waits[name] = self._waited(channel.next_in(queue))
        elif hasattr(channel, "_size"):  # another virtual transport: it cannot say
            self.waits[name] = None
        else:
            self.waits[name] = None
            self.consumers[name] = channel.queue_declare(queue, passive=True).consumer_count

    def _waited(self, raw: Iterable[bytes]) -> float | None:
        times = []
        for text in raw:
            try:
                sent = header(loads(text)["headers"], BUDGET_HEADER)["sent"]
                times.append(self._adopted.fleet_time() - float(sent))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
        return max(filter(math.isfinite, times), default=None)

    def _count_workers(self, names: Iterable[str]) -> None:
        app = self._adopted.app
        if not app.conf.worker_enable_remote_control:
            return
        answers: Any = app.control.inspect(timeout=WORKERS_SECONDS).active_queues() or {}
        taken = [queues for queues in answers.values() if isinstance(queues, list)]
        counted = Counter(one.get("name") for one in chain(*taken) if isinstance(one, dict))
        self.consumers = {name: counted[name] for name in names}
