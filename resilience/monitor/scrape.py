"""Shows the metrics of the whole fleet in one scrape, from Flower or from a process of its own."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from resilience.broker.beside import Beside, Outage
from resilience.clock import SystemClock
from resilience.monitor.metrics import COUNTED, GAUGES, PREFIX
from resilience.monitor.readings import Reading, Readings
from resilience.tasks.resilience import Resilience

logger = logging.getLogger("resilience")

STALE_SECONDS: Final = 10.0
"""A source that has not answered for so long beyond its turn is down: it hangs."""


class Scrape(Collector):
    """Answers scrapes from memory; threads ask store, broker and ledger beside them.

    While a source is away its gauges are missing and `up` is 0. Counters stay as they were.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Ask for what *resilience* declares, once started."""
        self._readings = Readings(resilience)
        self._seen: dict[str, tuple[float, Sequence[Reading]]] = {}
        self._counters: dict[tuple[str, ...], float] = {}
        self._born: object = None
        self.sources = self._readings.sources
        self.asked: set[str] = set()

    def start(self) -> None:
        """Begin to ask each source in a thread of its own."""
        for name, (seconds, ask) in self.sources.items():
            outage = Outage(logger, f"metrics lack the {name}", f"metrics have the {name} again")
            look = functools.partial(self._look, name, seconds, ask, outage)
            Beside(f"metrics-{name}", look).start()

    def _look(
        self, name: str, seconds: float, ask: Callable[[], Iterator[Reading]], outage: Outage
    ) -> float:
        try:
            found = list(ask())
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is down
            self._seen.pop(name, None)
            outage.note(error)
        else:
            until = SystemClock.monotonic() + seconds + STALE_SECONDS
            self._seen[name] = until, [one for one in found if one.metric in GAUGES]
            if name == "store":
                self._count(found)
            outage.note(None)
        self.asked.add(name)
        return seconds

    def _count(self, found: Sequence[Reading]) -> None:
        """Take over the counters; a failover to older data does not make them fall."""
        counters = {(one.metric, *one.labels): one.value for one in found if one.metric in COUNTED}
        before = self._counters if self._readings.born == self._born else {}
        self._born = self._readings.born
        self._counters = {name: max(now, before.get(name, 0.0)) for name, now in counters.items()}

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; asks nobody."""
        now = SystemClock.monotonic()
        fresh = {name: found for name, (until, found) in self._seen.items() if now < until}
        gauges: dict[str, GaugeMetricFamily] = {}
        for name, metric in GAUGES.items():
            gauges[name] = GaugeMetricFamily(PREFIX + name, metric.help, labels=metric.labels)
        for source in self.sources:
            gauges["up"].add_metric([source], source in fresh)
        for found in fresh.values():
            for one in found:
                gauges[one.metric].add_metric(one.labels, one.value)
        yield from gauges.values()
        yield from self._counted()

    def _counted(self) -> Iterator[Metric]:
        counters, exemplars = self._counters, self._readings.exemplars
        families: dict[str, Any] = {}
        for name, metric in COUNTED.items():
            kind = HistogramMetricFamily if metric.buckets else CounterMetricFamily
            families[name] = kind(PREFIX + name, metric.help, labels=metric.labels)
        histograms: dict[tuple[str, str], dict[str, float]] = {}
        for (name, *labels), value in counters.items():
            if COUNTED[name].buckets:
                histograms.setdefault((name, labels[0]), {})[labels[1]] = value
            else:
                trace = exemplars.get((name, *labels))
                exemplar = trace and Exemplar({"trace_id": trace[0]}, 1.0, trace[1])
                families[name].add_metric(labels, value, exemplar=exemplar)
        for (name, label), parts in histograms.items():
            total, buckets = 0.0, []
            for bound in [*map(str, COUNTED[name].buckets), "+Inf"]:
                total += parts.get(bound, 0.0)
                buckets.append((bound, total))
            families[name].add_metric([label], buckets, parts.get("sum", 0.0))
        yield from families.values()


def expose(resilience: Resilience, registry: CollectorRegistry = REGISTRY) -> Scrape:
    """Add the metrics of the fleet to *registry*, and begin to ask for them.

    In Flower the default registry is the right one: `/metrics` shows it. Every process that exposes
    them shows the same totals.
    """
    scrape = Scrape(resilience)
    registry.register(scrape)
    scrape.start()
    return scrape
