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

from msgspec.structs import replace

from abaco_proto.envelope import EPOCH, Recorded

START = bytes(32)
"""The hash before the first event."""

NONE = 0xFFFFFFFF

_head = struct.Struct(">qqqIIIII").pack


def link(previous: bytes, recorded: Recorded) -> bytes:
    """The hash of an event behind the event with the hash ``previous``."""
    return link_fit(previous, fit(recorded))


def link_fit(previous: bytes, recorded: Recorded) -> bytes:
    """The same of an event that has been made fit already."""
    return sha256(previous + _canonical(recorded)).digest()


def canonical(recorded: Recorded) -> bytes:
    """The bytes that stand for an event."""
    return _canonical(fit(recorded))


def _canonical(recorded: Recorded) -> bytes:
    texts = _texts(recorded)
    words = "".join(texts).encode()
    lengths = [*map(len, texts)]
    if sum(lengths) != len(words):
        lengths = [len(value.encode()) for value in texts]
    if recorded.traceparent is None:
        lengths[-1] = NONE
    head = _head(recorded.sequence, microseconds(recorded.time), recorded.hops, *lengths)
    return head + words + recorded.raw


def fit(recorded: Recorded) -> Recorded:
    """The event as columns can hold it: no NUL, nothing that UTF-8 cannot say, a time in UTC."""
    joined = "".join(_texts(recorded))
    if joined.isascii() and "\x00" not in joined and recorded.time.tzinfo is UTC:
        return recorded
    trace = recorded.traceparent
    return replace(
        recorded,
        subject=_text(recorded.subject),
        id=_text(recorded.id),
        causation_id=_text(recorded.causation_id),
        correlation_id=_text(recorded.correlation_id),
        traceparent=None if trace is None else _text(trace),
        time=_moment(recorded.time),
    )


def _texts(recorded: Recorded) -> tuple[str, ...]:
    return (
        recorded.subject,
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
        recorded.traceparent or "",
    )


def _text(value: str) -> str:
    return value.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _moment(time: datetime) -> datetime:
    """The time in UTC; the epoch when that lies before year 1 or after 9999."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return EPOCH


def microseconds(time: datetime) -> int:
    """A time in microseconds since 1970-01-01T00:00:00Z."""
    since = time - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
