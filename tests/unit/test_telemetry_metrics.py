"""The metric registry, and the metrics of the event log."""

import pytest

import builders as b
import readings
from abaco_proto import events as ev
from abaco_proto.envelope import Expected
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.names import all_events_filter, inbox_filter
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog, LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry
from fakes import InMemoryEventLog


class Connection:
    reconnects = 3
    connected = True


def test_every_kind_has_the_series_of_its_description() -> None:
    registry = MetricRegistry()
    registry.counter("a", "A.").inc()
    registry.gauge("b", "B.", "x").labels("1").set(2)
    registry.histogram("c", "C.").observe(0.2)
    registry.collected_counter("d", "D.", lambda: 7)
    names = {name for name, _ in readings.of(registry)}
    described = {name for one in registry.descriptions for name in one.series}
    assert names == described | {*registry.process_series}
    assert readings.value(readings.of(registry), "d_total") == 7
    assert "process_resident_memory_bytes" in names


def test_a_name_is_taken_once() -> None:
    registry = MetricRegistry()
    registry.counter("a", "A.")
    with pytest.raises(ValueError, match="Duplicated"):
        registry.gauge("a", "A.")


async def test_appends_are_counted_by_type_and_result() -> None:
    registry, log = MetricRegistry(), InMemoryEventLog()
    instrumented = InstrumentedEventLog(log, LogMetrics(registry))
    await instrumented.append(b.envelope_of(b.received(0)))
    none = Expected(filter=inbox_filter("default", "foo_0"), sequence=0)
    with pytest.raises(Conflict):
        await instrumented.append(b.envelope_of(b.received(1)), expected=none)
    log.available = False
    with pytest.raises(Unavailable):
        await instrumented.append(b.envelope_of(b.joined()))
    found = readings.of(registry)
    kind = "message.received"
    assert readings.value(found, "abaco_append_seconds_count", type=kind) == 2
    assert readings.value(found, "abaco_append_conflicts_total", type=kind) == 1
    assert readings.value(found, "abaco_append_failures_total", type="host.joined") == 1


async def test_what_cannot_be_read_is_counted() -> None:
    registry, log = MetricRegistry(), InMemoryEventLog()
    log.put_raw("abaco.event.default.foo_0.moon.landed", {}, b'{"type":"moon.landed"}')
    await log.append(b.envelope_of(b.received(0)))
    instrumented = InstrumentedEventLog(log, LogMetrics(registry))
    batches = [batch async for batch in instrumented.read([all_events_filter()])]
    assert isinstance(batches[0][0].event, ev.Unrecognized)
    assert readings.value(readings.of(registry), "abaco_events_read_total") == 2
    assert readings.value(readings.of(registry), "abaco_events_unrecognized_total") == 1


def test_the_state_of_the_connection_is_read_at_each_scrape() -> None:
    registry = MetricRegistry()
    metrics = LogMetrics(registry)
    assert readings.value(readings.of(registry), "abaco_nats_connected") == 0
    metrics.watch(Connection())
    assert readings.value(readings.of(registry), "abaco_nats_connected") == 1
    assert readings.value(readings.of(registry), "abaco_nats_reconnects_total") == 3
