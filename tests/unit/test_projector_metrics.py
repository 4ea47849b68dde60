"""The projector's metrics of its batches and of its lag."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

import builders as b
import readings
from abaco_projector.app import projection as projection_module
from abaco_projector.app.instrumented_projection import instrumented
from abaco_projector.app.projector_metrics import ProjectorMetrics
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable, Undecodable
from abaco_telemetry.context import NO_SPANS
from fakes import InMemoryEventLog


class Rows:
    """A store that refuses one sequence, and is unavailable at another."""

    def __init__(self, refused: int = 0, unavailable_at: int = 0) -> None:
        self._refused, self._away_at = refused, unavailable_at

    async def apply_events(
        self, batch: Sequence[Recorded], *, after: int, body_as_bytes: bool = False
    ) -> None:
        sequences = [recorded.sequence for recorded in batch]
        if self._refused in sequences:
            raise Undecodable("no")
        if self._away_at in sequences:
            raise Unavailable("away")

    async def skip_event(self, recorded: Recorded) -> None:
        pass


async def projected(log: InMemoryEventLog, rows: Any) -> tuple[ProjectorMetrics, readings.Reading]:
    """The metrics up to the outage that ends the projection."""
    metrics = ProjectorMetrics()
    projection = instrumented(projection_module.events_projection(log), metrics, NO_SPANS)
    with pytest.raises(Unavailable):
        await projection_module.project(projection, rows, 2, 1)
    await metrics.measure_lag(log)
    return metrics, readings.of(metrics.registry)


@pytest.fixture
async def log() -> InMemoryEventLog:
    log = InMemoryEventLog()
    await log.append(b.envelope_of(b.registered()))
    for n in range(9):
        await log.append(b.envelope_of(b.received(n)))
    return log


async def test_batches_are_counted_up_to_an_outage(log: InMemoryEventLog) -> None:
    _, found = await projected(log, Rows(refused=5, unavailable_at=8))
    # 2 3 | 4 | 5, which is left out | 6 7 | 8 9 is not written
    events = {"projection": "events"}
    assert readings.value(found, "abaco_projection_messages_total", **events) == 6
    assert readings.value(found, "abaco_projection_batch_messages_count", **events) == 4
    assert readings.value(found, "abaco_projection_refused_total", **events) == 1
    assert readings.value(found, "abaco_projection_outages_total", **events) == 1
    assert readings.value(found, "abaco_projection_position", **events) == 7


async def test_the_lag_counts_events_that_are_not_in_the_rows(log: InMemoryEventLog) -> None:
    metrics, found = await projected(log, Rows(unavailable_at=8))
    assert readings.value(found, "abaco_projector_lag_events") == 3
    assert readings.value(found, "abaco_projector_lag_seconds") > 0
    metrics.applied("events", 3, 10)
    await metrics.measure_lag(log)
    found = readings.of(metrics.registry)
    assert readings.value(found, "abaco_projector_lag_events") == 0
    assert readings.value(found, "abaco_projector_lag_seconds") == 0


async def test_an_unknown_lag_is_not_a_number(log: InMemoryEventLog) -> None:
    metrics, _ = await projected(log, Rows(unavailable_at=8))
    log.available = False
    await metrics.measure_lag(log)
    found = readings.of(metrics.registry)
    assert math.isnan(readings.value(found, "abaco_projector_lag_events"))
    fresh = ProjectorMetrics()
    await fresh.measure_lag(InMemoryEventLog())
    found = readings.of(fresh.registry)
    assert math.isnan(readings.value(found, "abaco_projector_lag_events"))
