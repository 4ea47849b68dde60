"""Events as rows of ``events``; the chain of hashes is not here yet, each is the body's own."""

import hashlib
from typing import Any

import msgspec

from abaco_proto.codec import encode
from abaco_proto.envelope import Recorded
from abaco_proto.subjects import parts_of


def event_row(recorded: Recorded) -> tuple[Any, ...]:
    """The columns, in the order of the table."""
    body = recorded.raw or encode(recorded.event)
    return (
        recorded.sequence,
        recorded.time,
        recorded.tenant,
        *parts_of(recorded.subject),
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
        recorded.hops,
        recorded.traceparent,
        recorded.subject,
        _data(body),
        body,
        hashlib.sha256(body).digest(),
    )


def _data(body: bytes) -> str | None:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body.decode()
