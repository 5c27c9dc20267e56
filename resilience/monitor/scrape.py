"""Shows the metrics of the whole fleet in one scrape, from Flower or from a process of its own."""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, core
from prometheus_client.registry import Collector

from resilience.broker.beside import Beside, Outage
from resilience.clock import SystemClock
from resilience.monitor.metrics import METRICS, PREFIX, Series
from resilience.monitor.readings import Readings, Values
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger

logger = get_logger("resilience")

STALE_SECONDS: Final = 10.0
"""A source that is late by so much hangs, and counts as down."""


class Scrape(Collector):
    """Answers scrapes from memory; threads ask store, broker and ledger beside them.

    While a source is away its gauges are missing and `up` is 0. Counters stay as they were.

    Attributes:
        ready: Set once each source was asked.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Ask for what *resilience* declares, once started."""
        self._readings = Readings(resilience)
        self.ready = threading.Event()
        self._gauges: dict[str, tuple[float, Mapping[Series, float]]] = {}
        self._counts: Mapping[Series, float] = {}
        self._born: object = None

    def start(self) -> None:
        """Begin to ask each source in a thread of its own."""
        for name, (seconds, ask) in self._readings.sources.items():
            outage = Outage(logger, f"metrics lack the {name}", f"metrics have the {name} again")
            look = functools.partial(self._look, name, seconds, ask, outage)
            Beside(f"metrics-{name}", look).start()

    def _look(self, name: str, seconds: float, ask: Callable[[], Values], outage: Outage) -> float:
        try:
            values = dict(ask())
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is down
            self._gauges[name] = float("-inf"), {}
            outage.note(error)
        else:
            gauges = {key: v for key, v in values.items() if METRICS[key[0]].kind == "gauge"}
            self._gauges[name] = SystemClock.monotonic() + seconds + STALE_SECONDS, gauges
            if name == "store":
                self._count({key: v for key, v in values.items() if key not in gauges})
            outage.note(None)
        if len(self._gauges) == len(self._readings.sources):
            self.ready.set()
        return seconds

    def _count(self, counts: Mapping[Series, float]) -> None:
        """Keep *counts*, but let none fall when the store fails over to older data."""
        before = self._counts if self._born == self._readings.born else {}
        self._born = self._readings.born
        self._counts = {key: max(count, before.get(key, 0.0)) for key, count in counts.items()}

    def collect(self) -> Iterator[core.Metric]:
        """Yield all metrics; asks nobody."""
        now, histograms = SystemClock.monotonic(), dict[Series, dict[str, float]]()
        fresh = {name: gauges for name, (until, gauges) in self._gauges.items() if now < until}
        families: dict[str, Any] = {}
        for name, metric in METRICS.items():
            family = getattr(core, f"{metric.kind.title()}MetricFamily")
            families[name] = family(PREFIX + name, metric.help, labels=metric.labels)
        for source in self._readings.sources:
            families["up"].add_metric([source], source in fresh)
        for gauges in fresh.values():
            for (name, *labels), value in gauges.items():
                families[name].add_metric(labels, value)
        for series, value in self._counts.items():
            if METRICS[series[0]].buckets:
                histograms.setdefault(series[:-1], {})[series[-1]] = value
                continue
            trace = self._readings.exemplars.get(series)
            exemplar = trace and core.Exemplar({"trace_id": trace[0]}, 1.0, trace[1])
            families[series[0]].add_metric(series[1:], value, exemplar=exemplar)
        for (name, *labels), parts in histograms.items():
            total, buckets = 0.0, []
            for bound in [*map(str, METRICS[name].buckets), "+Inf"]:
                total += parts.get(bound, 0.0)
                buckets.append((bound, total))
            families[name].add_metric(labels, buckets, parts.get("sum", 0.0))
        yield from families.values()


def expose(resilience: Resilience, registry: CollectorRegistry = REGISTRY) -> Scrape:
    """Add the metrics of the fleet to *registry*, and begin to ask for them.

    In Flower the default registry is the right one: `/metrics` shows it. Every process that exposes
    them shows the same totals.
    """
    resilience.app.loader.import_default_modules()  # labels are the names of declared tasks
    scrape = Scrape(resilience)
    registry.register(scrape)
    scrape.start()
    return scrape
