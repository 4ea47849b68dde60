"""Events encoded once, for however many will get them."""

from datetime import datetime

import msgspec

from abaco_api.streams.domain.event_result import shown
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.subjects import actor_and_type

OVERHEAD_BYTES = 1000
"""About what an item takes beside the bytes of its event."""

DATA, END = b"\ndata: ", b"\n\n"

_encode = msgspec.json.Encoder().encode


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An event ready to be sent: what filters ask for, and its frame in a ``text/event-stream``.

    ``event`` is the decoded body.
    """

    sequence: int
    type: str
    actor_id: str
    time: datetime
    id: str
    correlation_id: str
    hops: int
    traceparent: str | None = None
    event: ev.Event
    frame: bytes

    @property
    def json(self) -> bytes:
        """The object that people see."""
        return self.frame[self.frame.index(DATA) + len(DATA) : -len(END)]

    @property
    def size(self) -> int:
        """About how many bytes it keeps in memory: the frame, and the decoded event."""
        return 2 * len(self.frame) + OVERHEAD_BYTES


def item(recorded: Recorded) -> Item:
    """Encode an event."""
    actor_id, kind = actor_and_type(recorded.subject)
    return Item(
        sequence=recorded.sequence,
        type=kind,
        actor_id=actor_id,
        time=recorded.time,
        id=recorded.id,
        correlation_id=recorded.correlation_id,
        hops=recorded.hops,
        traceparent=recorded.traceparent,
        event=recorded.event,
        frame=frame(str(recorded.sequence), kind, _encode(shown(recorded))),
    )


def frame(sequence: str, kind: str, json: bytes) -> bytes:
    """One event of a stream, as the HTML standard has it ("Server-sent events")."""
    return b"id: %s\nevent: %s%s%s%s" % (sequence.encode(), kind.encode(), DATA, json, END)
