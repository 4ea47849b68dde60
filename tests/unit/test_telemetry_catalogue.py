"""The catalogue of metrics, and what every service counts of the log."""

import pytest

import builders as b
import readings
from abaco_proto import events as ev
from abaco_proto.append_condition import Expected
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.subjects import all_events_filter, inbox_filter
from abaco_telemetry.catalogue import Catalogue
from abaco_telemetry.event_log import LogMetrics, WatchedEventLog
from fakes import InMemoryEventLog


class Connection:
    generation = 3
    connected = True


def test_every_kind_is_read_under_the_names_it_says() -> None:
    catalogue = Catalogue()
    catalogue.counter("a", "A.").inc()
    catalogue.gauge("b", "B.", "x").labels("1").set(2)
    catalogue.histogram("c", "C.").observe(0.2)
    catalogue.looked_up("d", "D.", lambda: 7)
    names = {name for name, _ in readings.of(catalogue)}
    said = {name for described in catalogue.described for name in described.series}
    assert names == said | {*catalogue.of_the_process}
    assert readings.value(readings.of(catalogue), "d_total") == 7
    assert "process_resident_memory_bytes" in names


def test_a_name_is_taken_once() -> None:
    catalogue = Catalogue()
    catalogue.counter("a", "A.")
    with pytest.raises(ValueError, match="Duplicated"):
        catalogue.gauge("a", "A.")


async def test_appends_are_counted_by_type_and_by_what_became_of_them() -> None:
    catalogue, log = Catalogue(), InMemoryEventLog()
    watched = WatchedEventLog(log, LogMetrics(catalogue))
    await watched.append(b.envelope_of(b.received(0)))
    none = Expected(filter=inbox_filter("default", "foo_0"), sequence=0)
    with pytest.raises(Conflict):
        await watched.append(b.envelope_of(b.received(1)), expected=none)
    log.available = False
    with pytest.raises(Unavailable):
        await watched.append(b.envelope_of(b.joined()))
    found = readings.of(catalogue)
    kind = "message.received"
    assert readings.value(found, "abaco_append_seconds_count", type=kind) == 2
    assert readings.value(found, "abaco_append_conflicts_total", type=kind) == 1
    assert readings.value(found, "abaco_append_failures_total", type="host.joined") == 1


async def test_what_cannot_be_read_is_counted() -> None:
    catalogue, log = Catalogue(), InMemoryEventLog()
    log.put_raw("abaco.event.default.foo_0.moon.landed", {}, b'{"type":"moon.landed"}')
    await log.append(b.envelope_of(b.received(0)))
    watched = WatchedEventLog(log, LogMetrics(catalogue))
    batches = [batch async for batch in watched.read([all_events_filter()])]
    assert isinstance(batches[0][0].event, ev.Unrecognized)
    assert readings.value(readings.of(catalogue), "abaco_events_read_total") == 2
    assert readings.value(readings.of(catalogue), "abaco_events_unrecognized_total") == 1


def test_the_connection_is_asked_when_somebody_reads() -> None:
    catalogue = Catalogue()
    metrics = LogMetrics(catalogue)
    assert readings.value(readings.of(catalogue), "abaco_nats_connected") == 0
    metrics.watch(Connection())
    assert readings.value(readings.of(catalogue), "abaco_nats_connected") == 1
    assert readings.value(readings.of(catalogue), "abaco_nats_reconnects_total") == 3
