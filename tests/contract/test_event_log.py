"""The event log's contract, on the fake."""

import asyncio

import pytest

from abaco_jetstream.retry import append_until_stored, every
from abaco_proto.errors import Unavailable
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog, LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry
from contract.event_log_suite import EventLogSuite, message
from fakes import InMemoryEventLog


@pytest.fixture
def log() -> InMemoryEventLog:
    return InMemoryEventLog()


class TestInMemoryEventLog(EventLogSuite):
    pass


class TestWatchedEventLog(EventLogSuite):
    @pytest.fixture
    def log(self) -> InstrumentedEventLog:
        return InstrumentedEventLog(InMemoryEventLog(), LogMetrics(MetricRegistry()))


async def test_a_log_that_is_away_refuses(log: InMemoryEventLog) -> None:
    log.available = False
    with pytest.raises(Unavailable):
        await log.append(message(0))


async def test_append_until_stored_outlasts_an_outage(log: InMemoryEventLog) -> None:
    log.available = False
    append = asyncio.create_task(
        append_until_stored(log, message(0), after=0, backoff=every(0.001))
    )
    await asyncio.sleep(0)
    log.available = True
    assert await append == 1
