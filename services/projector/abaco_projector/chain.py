"""The hash chain over the log: each event's hash stands for it and for all before it.

Theory: ``hash_n = SHA-256(hash_{n-1} || canonical_n)`` with 32 zero bytes before the first. Whoever
has noted one hash can tell later that no event up to there was changed, removed, added or moved.
What is hashed is exactly what the columns of ``events`` hold, so SQL alone can compute it again:

====================  ============================================================================
part of canonical_n   is
====================  ============================================================================
``seq``               8 bytes, big-endian
``time``              8 bytes, big-endian, signed: microseconds since 1970-01-01T00:00:00Z
``hops``              8 bytes, big-endian
``subject``           its length in bytes (4 bytes, big-endian), then UTF-8
``id``                the same
``causation_id``      the same
``correlation_id``    the same
``traceparent``       the same; the length is 0xFFFFFFFF and nothing follows when there is none
the body              the rest: the bytes as they are stored
====================  ============================================================================
"""

import struct
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from abaco_proto.envelope import EPOCH, Recorded

START = bytes(32)
"""The hash before the first event."""

NONE = b"\xff\xff\xff\xff"

_head = struct.Struct(">qqq").pack
_length = struct.Struct(">I").pack
_MICROSECOND = timedelta(microseconds=1)


def link(previous: bytes, recorded: Recorded) -> bytes:
    """The hash of an event behind the event with the hash ``previous``."""
    return sha256(previous + canonical(recorded)).digest()


def canonical(recorded: Recorded) -> bytes:
    """The bytes that stand for an event."""
    head = _head(recorded.sequence, _microseconds(moment(recorded.time)), recorded.hops)
    parts = [
        part
        for value in (
            recorded.subject,
            recorded.id,
            recorded.causation_id,
            recorded.correlation_id,
        )
        for part in _prefixed(value)
    ]
    trace = (NONE,) if recorded.traceparent is None else _prefixed(recorded.traceparent)
    return b"".join((head, *parts, *trace, recorded.raw))


def text(value: str) -> str:
    """A text as a column can hold it: no NUL, and nothing that UTF-8 cannot say."""
    if value.isascii() and "\x00" not in value:
        return value
    return value.encode(errors="replace").decode().replace("\x00", "\ufffd")


def moment(time: datetime) -> datetime:
    """A time as a column can hold it: the epoch when it lies before year 1 or after 9999 in UTC."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return EPOCH


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // _MICROSECOND


def _prefixed(value: str) -> tuple[bytes, bytes]:
    raw = text(value).encode()
    return _length(len(raw)), raw
