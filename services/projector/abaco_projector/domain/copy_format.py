"""The bytes that Postgres returns for rows of the verified copy: the query ``copied`` in binary
COPY.

A row is its number of columns, and for each column its length (-1: null) and its bytes. All
numbers are big-endian; a time is in microseconds since 2000. Source: the PostgreSQL manual, COPY,
"Binary Format", and the ``send`` functions of the types.
"""

import struct
from collections.abc import Iterable
from datetime import UTC, datetime

from abaco_projector.domain.event_rows import subject_parts
from abaco_projector.domain.hash_chain import microseconds
from abaco_proto.envelope import Recorded

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
END = b"\xff\xff"

COLUMNS = 15
Y2K_MICROSECONDS = microseconds(datetime(2000, 1, 1, tzinfo=UTC))
NULL = b"\xff\xff\xff\xff"

_numbers = struct.Struct(">hiqiqiiii").pack
_length = struct.Struct(">i").pack


def expected_copy(rows: Iterable[bytes]) -> bytes:
    """Return the complete COPY of these rows."""
    return b"".join((HEADER, *rows, END))


def expected_row(recorded: Recorded, own_hash: bytes) -> bytes:
    """Return the row of a normalised event; see
    :func:`abaco_projector.domain.hash_chain.normalised_and_hashed`.

    The query returns the body from whichever column holds it, and the number of those columns: 1.
    """
    since = microseconds(recorded.time) - Y2K_MICROSECONDS
    texts = (
        *subject_parts(recorded.subject),
        recorded.subject,
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
    )
    tenant, actor_id, type_, subject, id_, causation, correlation = map(str.encode, texts)
    raw = recorded.raw
    parts = [_numbers(COLUMNS, 8, recorded.sequence, 8, since, 4, recorded.hops, 4, 1)]
    parts += _length(len(tenant)), tenant, _length(len(actor_id)), actor_id
    parts += _length(len(type_)), type_, _length(len(subject)), subject
    parts += _length(len(id_)), id_, _length(len(causation)), causation
    parts += _length(len(correlation)), correlation
    parts += _nullable(recorded.principal), _nullable(recorded.traceparent)
    parts += _length(len(raw)), raw, _length(len(own_hash)), own_hash
    return b"".join(parts)


def _nullable(text: str | None) -> bytes:
    if text is None:
        return NULL
    value = text.encode()
    return _length(len(value)) + value
