"""The hash chain over the log: each event's hash stands for it and for all before it.

Theory: ``hash_n = SHA-256(hash_{n-1} || canonical_n)`` with 32 zero bytes before the first. Whoever
has noted one hash can tell later that no event up to there was changed, removed, added or moved.
What is hashed is exactly what the columns of ``events`` hold, so SQL alone can compute it again.

``canonical_n`` is, all numbers big-endian:

==========  ======================================================================================
bytes       are
==========  ======================================================================================
8, 8, 8     ``seq``; ``time`` in microseconds since 1970-01-01T00:00:00Z (signed); ``hops``
5 times 4   the lengths in bytes of ``subject``, ``id``, ``causation_id``, ``correlation_id`` and
            ``traceparent``; 0xFFFFFFFF for a ``traceparent`` that is not there
the rest    these five in UTF-8, one after the other; then the body as it is stored
==========  ======================================================================================
"""

import struct
from datetime import UTC, datetime
from hashlib import sha256

from abaco_proto.envelope import EPOCH, Recorded

START = bytes(32)
"""The hash before the first event."""

NONE = 0xFFFFFFFF

_head = struct.Struct(">qqqIIIII").pack


def link(previous: bytes, recorded: Recorded) -> bytes:
    """The hash of an event behind the event with the hash ``previous``."""
    return sha256(previous + canonical(recorded)).digest()


def canonical(recorded: Recorded) -> bytes:
    """The bytes that stand for an event."""
    trace = recorded.traceparent
    texts = (
        recorded.subject,
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
        trace or "",
    )
    joined = "".join(texts)
    if joined.isascii() and "\x00" not in joined:
        lengths, words = [len(value) for value in texts], joined.encode()
    else:
        encoded = [text(value).encode() for value in texts]
        lengths, words = [len(value) for value in encoded], b"".join(encoded)
    if trace is None:
        lengths[-1] = NONE
    head = _head(recorded.sequence, _microseconds(recorded.time), recorded.hops, *lengths)
    return head + words + recorded.raw


def text(value: str) -> str:
    """A text as a column can hold it: no NUL, and nothing that UTF-8 cannot say."""
    if value.isascii() and "\x00" not in value:
        return value
    return value.encode(errors="replace").decode().replace("\x00", "\ufffd")


def moment(time: datetime) -> datetime:
    """A time as a column can hold it: the epoch when it lies before year 1 or after 9999 in UTC."""
    if time.tzinfo is UTC:
        return time
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return EPOCH


def _microseconds(time: datetime) -> int:
    since = moment(time) - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
