"""The metrics of one process. Only this module imports prometheus_client.

Every metric is registered before it is counted, so the registry can be written to
docs/reference/metrics.md, and checked (the dashboard names no other metric). A label must have few
values, whatever users do: never an execution, an image or a client's path; of the actors, only the
few with the highest values.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import Metric

__all__ = [
    "CONTENT_TYPE",
    "COUNT_BUCKETS",
    "SECONDS_BUCKETS",
    "Counter",
    "Gauge",
    "Histogram",
    "MetricDescription",
    "MetricRegistry",
]

SECONDS_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
    *(2.5, 5, 10, 30, 60, 300),
)
"""The buckets of durations: from the start of an idle sandbox to a run of minutes."""

COUNT_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""The buckets of batch sizes."""

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the number of series


class MetricDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A registered metric. ``name`` is without the suffixes of its kind."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help_text: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series in a scrape."""
        return tuple(self.name + suffix for suffix in _SUFFIXES[self.kind])


class MetricRegistry:
    """The metrics of one process, including those about the process itself."""

    def __init__(self) -> None:
        """Start with the metrics about the process."""
        self._registry = CollectorRegistry()
        self._process = ProcessCollector(registry=self._registry)
        self.descriptions: list[MetricDescription] = []

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        """Register a counter; its series is ``<name>_total``."""
        self._describe(name, "counter", help_text, labels)
        return Counter(name, help_text, labels, registry=self._registry)

    def gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        """Register a gauge."""
        self._describe(name, "gauge", help_text, labels)
        return Gauge(name, help_text, labels, registry=self._registry)

    def histogram(
        self,
        name: str,
        help_text: str,
        *labels: str,
        buckets: tuple[float, ...] = SECONDS_BUCKETS,
    ) -> Histogram:
        """Register a histogram, of seconds by default."""
        self._describe(name, "histogram", help_text, labels)
        return Histogram(name, help_text, labels, registry=self._registry, buckets=buckets)

    def collected_counter(self, name: str, help_text: str, read_value: Callable[[], float]) -> None:
        """Register a counter that is kept elsewhere; ``read_value`` is called at each scrape."""
        self._describe(name, "counter", help_text, ())
        self._registry.register(_CollectedCounter(name, help_text, read_value))

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    @property
    def process_series(self) -> tuple[str, ...]:
        """The names of the series about the process itself."""
        found = self._process.collect()
        return tuple(sample.name for metric in found for sample in metric.samples)

    def _describe(
        self,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        help_text: str,
        labels: tuple[str, ...],
    ) -> None:
        description = MetricDescription(name=name, kind=kind, help_text=help_text, labels=labels)
        self.descriptions.append(description)


class _CollectedCounter:
    """A collector for a counter that is kept elsewhere."""

    def __init__(self, name: str, help_text: str, read_value: Callable[[], float]) -> None:
        self._name, self._help_text, self._read_value = name, help_text, read_value

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._help_text, value=self._read_value())
