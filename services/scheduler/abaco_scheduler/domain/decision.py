"""The input and output of a plan: a moment, and decisions that hold under a condition."""

from datetime import datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto.envelope import Expected


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """A moment on both clocks.

    ``time`` is of :class:`abaco_scheduler.domain.event_clock.EventClock`, as are the times in the
    cluster. ``monotonic`` and ``connected_since`` are readings of the monotonic clock in seconds;
    before ``connected_since`` no heartbeat could arrive.
    """

    time: datetime
    monotonic: float
    connected_since: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append, its cause, and the condition under which it holds.

    ``expected`` is None where the event's id alone prevents a duplicate. If the message is traced,
    ``traceparent`` is its trace and ``trace_start`` is when the scheduler's span begins.
    """

    tenant: str
    event: ev.Event
    causation_id: str
    correlation_id: str | None = None
    hops: int = 0
    traceparent: str | None = None
    trace_start: datetime | None = None
    expected: Expected | None = None
