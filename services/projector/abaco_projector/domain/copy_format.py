"""Events as the bytes that Postgres gives for their rows: the query ``copied`` in binary COPY.

A row is the number of its columns, and for each of them its length (-1: null) and its bytes; all
numbers are big-endian, a time is in microseconds since 2000. Source: the page of COPY in the
manual of Postgres, "Binary Format", and the types' ``send`` functions.
"""

import struct
from collections.abc import Iterable
from datetime import UTC, datetime

from abaco_projector.domain.event_rows import place_of
from abaco_projector.domain.hash_chain import microseconds
from abaco_proto.envelope import Recorded

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
END = b"\xff\xff"

COLUMNS = 14
Y2K_MICROSECONDS = microseconds(datetime(2000, 1, 1, tzinfo=UTC))
NULL = b"\xff\xff\xff\xff"

_numbers = struct.Struct(">hiqiqiiii").pack
_length = struct.Struct(">i").pack


def table(rows: Iterable[bytes]) -> bytes:
    """All that a COPY of these rows gives."""
    return b"".join((HEADER, *rows, END))


def row(recorded: Recorded, own_hash: bytes) -> bytes:
    """The row of an event that :func:`abaco_projector.domain.hash_chain.fit` has normalised.

    It holds the body wherever the copy keeps it, and that it does so in one place.
    """
    since = microseconds(recorded.time) - Y2K_MICROSECONDS
    texts = (
        *place_of(recorded.subject),
        recorded.subject,
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
    )
    tenant, actor_id, type_, subject, id_, causation, correlation = map(str.encode, texts)
    trace, raw = NULL, recorded.raw
    if recorded.traceparent is not None:
        words = recorded.traceparent.encode()
        trace = _length(len(words)) + words
    parts = [_numbers(COLUMNS, 8, recorded.sequence, 8, since, 4, recorded.hops, 4, 1)]
    parts += _length(len(tenant)), tenant, _length(len(actor_id)), actor_id
    parts += _length(len(type_)), type_, _length(len(subject)), subject
    parts += _length(len(id_)), id_, _length(len(causation)), causation
    parts += _length(len(correlation)), correlation, trace
    parts += _length(len(raw)), raw, _length(len(own_hash)), own_hash
    return b"".join(parts)
