"""Events, encoded once for all their receivers."""

from datetime import datetime

import msgspec

from abaco_api.streams.domain.event_result import event_result
from abaco_api.streams.domain.sse_frames import data_in, frame
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.names import actor_and_type

OVERHEAD_BYTES = 1000
"""The memory of an event beside the bytes of its frame, about."""

_encode = msgspec.json.Encoder().encode


class EncodedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event ready to be sent: the fields that filters read, and its frame.

    ``event`` is the decoded body.
    """

    sequence: int
    type: str
    actor_id: str
    time: datetime
    id: str
    correlation_id: str
    hops: int
    principal: str | None
    traceparent: str | None = None
    event: ev.Event
    frame: bytes

    @property
    def json(self) -> bytes:
        """The event as a JSON object."""
        return data_in(self.frame)

    @property
    def size(self) -> int:
        """The bytes it takes in memory, about: the frame, and the decoded event."""
        return 2 * len(self.frame) + OVERHEAD_BYTES


def encode_event(recorded: Recorded) -> EncodedEvent:
    """Encode an event."""
    actor_id, kind = actor_and_type(recorded.subject)
    return EncodedEvent(
        sequence=recorded.sequence,
        type=kind,
        actor_id=actor_id,
        time=recorded.time,
        id=recorded.id,
        correlation_id=recorded.correlation_id,
        hops=recorded.hops,
        principal=recorded.principal,
        traceparent=recorded.traceparent,
        event=recorded.event,
        frame=frame(_encode(event_result(recorded)), event=kind, id=str(recorded.sequence)),
    )
