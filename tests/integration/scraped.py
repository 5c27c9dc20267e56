"""What a scrape shows, sample by sample."""

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed
from prometheus_client.parser import text_string_to_metric_families as text_parsed

__all__ = ["samples", "text_parsed"]


def samples(
    text: str, parse: Callable[[str], Iterable[Any]] = parsed
) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by name and sorted labels."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in parse(text)
        for sample in family.samples
    }
