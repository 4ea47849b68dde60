"""What a plan is made of: a moment, and decisions that hold under a condition."""

from datetime import datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto.log import Expected


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """A moment on both clocks, and since when (monotonic) heartbeats could be heard at all.

    ``time`` is of :class:`abaco_scheduler.clock.Clock`, as are the times in the cluster.
    """

    time: datetime
    monotonic: float
    listening_since: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append, its cause, and the condition under which it holds.

    ``since`` is when it began to be due, where somebody traces it: ``traceparent``.
    """

    tenant: str
    event: ev.Event
    causation_id: str
    correlation_id: str | None = None
    hops: int = 0
    traceparent: str | None = None
    since: datetime | None = None
    expected: Expected | None = None
