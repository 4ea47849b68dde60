"""The catalogue: all metrics of one process, as a value. Only this module has prometheus_client.

Every metric is made before it is counted, so the catalogue can be printed, to
docs/reference/metrics.md, and checked (the dashboard names nothing that does not exist). A label's
values must be few, whatever people do: never an execution, an image or a path that a client chose;
actors only the worst few.
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
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

__all__ = ["COUNTS", "SECONDS", "Catalogue", "Counter", "Described", "Gauge", "Histogram"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""The borders of durations: from a waiting sandbox's start to a run of minutes."""

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""The borders of batches."""

_ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A metric as it was made. ``name`` is without the endings that its kind adds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    words: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which it is read."""
        return tuple(self.name + ending for ending in _ENDINGS[self.kind])


class Catalogue:
    """The metrics of one process, those of the process itself among them."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._registry = CollectorRegistry()
        self._process = ProcessCollector(registry=self._registry)
        self.described: list[Described] = []

    def counter(self, name: str, words: str, *labels: str) -> Counter:
        """What only rises; it is read as ``<name>_total``."""
        self._describe(name, "counter", words, labels)
        return Counter(name, words, labels, registry=self._registry)

    def gauge(self, name: str, words: str, *labels: str) -> Gauge:
        """What rises and falls."""
        self._describe(name, "gauge", words, labels)
        return Gauge(name, words, labels, registry=self._registry)

    def histogram(
        self, name: str, words: str, *labels: str, borders: tuple[float, ...] = SECONDS
    ) -> Histogram:
        """What has a size; seconds, if nothing else is said."""
        self._describe(name, "histogram", words, labels)
        return Histogram(name, words, labels, registry=self._registry, buckets=borders)

    def looked_up(self, name: str, words: str, look: Callable[[], float]) -> None:
        """What only rises and is counted elsewhere already: ``look`` is asked at each reading."""
        self._describe(name, "counter", words, ())
        self._registry.register(_LookedUp(name, words, look))

    def text(self) -> bytes:
        """All of it, in the text form of Prometheus."""
        return generate_latest(_Plain(self._registry))

    @property
    def of_the_process(self) -> tuple[str, ...]:
        """The names of what is read of the process itself."""
        found = self._process.collect()
        return tuple(sample.name for metric in found for sample in metric.samples)

    def _describe(
        self,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        words: str,
        labels: tuple[str, ...],
    ) -> None:
        self.described.append(Described(name=name, kind=kind, words=words, labels=labels))


class _LookedUp:
    """A counter that somebody else keeps."""

    def __init__(self, name: str, words: str, look: Callable[[], float]) -> None:
        self._name, self._words, self._look = name, words, look

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._words, value=self._look())


class _Plain:
    """A registry without the times at which its series began: they would double the series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
