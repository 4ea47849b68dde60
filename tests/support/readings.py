"""Metrics as who reads them sees them."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from abaco_telemetry.metric_registry import MetricRegistry

Reading = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Reading:
    """All samples of a page, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(registry: MetricRegistry) -> Reading:
    return read(registry.text().decode())


def value(reading: Reading, name: str, **labels: str) -> float:
    """One sample; the sum of those that have these labels among others; 0 for none."""
    wanted = set(labels.items())
    return sum(v for (n, found), v in reading.items() if n == name and wanted <= {*found})
