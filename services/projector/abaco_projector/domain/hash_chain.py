"""The hash chain over the log: the hash of an event covers it and all events before it.

``hash_n = SHA-256(hash_{n-1} || canonical_n)``, with 32 zero bytes before the first event. A hash
that was noted once shows later that no event up to it was changed, removed, added or moved. The
hashed bytes are exactly what the columns of ``events`` hold, so SQL alone can compute them.

``canonical_n`` has two forms. Form 1 is that of an event without a ``principal``, all numbers
big-endian:

==========  ======================================================================================
bytes       content
==========  ======================================================================================
8, 8, 8     ``seq``; ``time`` in microseconds since 1970-01-01T00:00:00Z (signed); ``hops``
5 times 4   the lengths in bytes of ``subject``, ``id``, ``causation_id``, ``correlation_id`` and
            ``traceparent``; 0xFFFFFFFF if there is no ``traceparent``
the rest    these five in UTF-8, one after another; then the body as it is stored
==========  ======================================================================================

Form 2 is that of an event with one: 8 bytes with the number -2, which no ``seq`` is; 4 bytes with
the length of ``principal``; ``principal`` in UTF-8; then form 1.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from msgspec.structs import replace

from abaco_proto.envelope import EPOCH, Recorded

GENESIS_HASH = bytes(32)
"""The hash before the first event."""

NO_TRACEPARENT = 0xFFFFFFFF

FORM_2 = -2
"""What the canonical form of an event with a principal begins with."""

_head = struct.Struct(">qqqIIIII").pack
_principal_head = struct.Struct(">qI").pack


def next_hash(previous: bytes, recorded: Recorded) -> bytes:
    """Return the hash of an event that follows an event with the hash ``previous``."""
    return normalised_and_hashed(previous, recorded)[1]


def normalised_and_hashed(previous: bytes, recorded: Recorded) -> tuple[Recorded, bytes]:
    """Return the event as columns can hold it, and its hash after the hash ``previous``.

    They hold neither NUL nor lone surrogates, and the time in UTC.
    """
    recorded, texts, joined = _normalised(recorded)
    return recorded, sha256(previous + _canonical(recorded, texts, joined)).digest()


def canonical(recorded: Recorded) -> bytes:
    """Return the bytes of an event that are hashed."""
    return _canonical(*_normalised(recorded))


def _canonical(recorded: Recorded, texts: Sequence[str], joined: str) -> bytes:
    lengths = [*map(len, texts)]
    if not joined.isascii():
        lengths = [len(value.encode()) for value in texts]
    if recorded.traceparent is None:
        lengths[-1] = NO_TRACEPARENT
    head = _head(recorded.sequence, microseconds(recorded.time), recorded.hops, *lengths)
    form_1 = head + joined.encode() + recorded.raw
    if recorded.principal is None:
        return form_1
    principal = recorded.principal.encode()
    return _principal_head(FORM_2, len(principal)) + principal + form_1


def _normalised(recorded: Recorded) -> tuple[Recorded, Sequence[str], str]:
    """Return the normalised event, its texts, and these joined: each event is joined once."""
    texts = _text_fields(recorded)
    joined = "".join(texts)
    principal, trace = recorded.principal, recorded.traceparent
    if (
        _is_plain(joined)
        and (principal is None or _is_plain(principal))
        and recorded.time.tzinfo is UTC
    ):
        return recorded, texts, joined
    recorded = replace(
        recorded,
        subject=_text(recorded.subject),
        id=_text(recorded.id),
        causation_id=_text(recorded.causation_id),
        correlation_id=_text(recorded.correlation_id),
        principal=None if principal is None else _text(principal),
        traceparent=None if trace is None else _text(trace),
        time=_to_utc(recorded.time),
    )
    texts = _text_fields(recorded)
    return recorded, texts, "".join(texts)


def _text_fields(recorded: Recorded) -> tuple[str, ...]:
    return (
        recorded.subject,
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
        recorded.traceparent or "",
    )


def _is_plain(value: str) -> bool:
    return value.isascii() and "\x00" not in value


def _text(value: str) -> str:
    return value.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _to_utc(time: datetime) -> datetime:
    """Return the time in UTC, or the epoch if that is before year 1 or after 9999."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return EPOCH


def microseconds(time: datetime) -> int:
    """Return a time in microseconds since 1970-01-01T00:00:00Z."""
    since = time - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
