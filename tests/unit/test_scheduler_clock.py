"""Pauses have the right length, whichever clock is an hour off."""

from datetime import UTC, datetime, timedelta

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.decision import Now
from abaco_scheduler.domain.event_clock import EventClock
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import Policy

HOUR = timedelta(hours=1)
START = 1000.0
POLICY = Policy(retry_seconds=10.0, worker_retry_seconds=10.0)


def decided(clock: EventClock, cluster: Cluster, seconds: float) -> list[type[ev.Event]]:
    """What is decided so long after the start."""
    now = Now(time=clock.at(START + seconds), monotonic=START, connected_since=START)
    return [type(decision.event) for decision in plan(cluster, POLICY, now)]


@pytest.mark.parametrize("skew", [-HOUR, timedelta(), HOUR], ids=["behind", "right", "ahead"])
@pytest.mark.parametrize(
    ("failure", "again"),
    [
        ([b.ready(), b.received(), b.assigned(), b.execution_failed()], ev.ExecutionAssigned),
        ([b.failed(), b.stopped()], ev.WorkerRequested),
    ],
)
def test_a_pause_is_as_long_whatever_the_time_on_the_event(
    skew: timedelta, failure: list[ev.Event], again: type[ev.Event]
) -> None:
    clock, cluster = EventClock(b.T0, START), Cluster()
    history = b.history(b.registered(), b.joined(), b.requested(), *failure)
    for recorded in history:
        apply_event(cluster, clock.corrected(_at(recorded, b.T0 + skew), START, live=True))
    assert again not in decided(clock, cluster, 9)
    assert again in decided(clock, cluster, 11)


def test_of_history_no_time_is_later_than_now() -> None:
    clock = EventClock(b.T0, START)
    recorded = b.record(b.registered())
    for time in (b.T0 + HOUR, datetime.max.replace(tzinfo=UTC)):
        assert clock.corrected(_at(recorded, time), START, live=False).time == b.T0
    assert clock.corrected(_at(recorded, b.T0 - HOUR), START, live=False).time == b.T0 - HOUR


def _at(recorded: Recorded, time: datetime) -> Recorded:
    return b.record(recorded.event, recorded.sequence, at=time)
