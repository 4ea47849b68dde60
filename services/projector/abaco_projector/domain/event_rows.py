"""Rows of the table ``events``, the verified copy of the log: one row per event.

A body is stored once: as JSON text in ``data``, a column that keeps the text byte by byte, or, if
Postgres refuses it as JSON, as bytes in ``body``. The other column is null.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from abaco_projector.domain.hash_chain import normalised_and_hashed
from abaco_proto import events as ev
from abaco_proto.envelope import DECODE_ERRORS, Recorded

FIRST_OF_TYPE, LAST_OF_TYPE = 4, 6
"""The position of the type in the tokens of ``abaco.event.<tenant>.<actor_id>.<entity>.<verb>``."""


class EventRow(NamedTuple):
    """One row; the fields are the columns, in their order."""

    seq: int
    time: datetime
    tenant: str
    actor_id: str
    type: str
    id: str
    causation_id: str
    correlation_id: str
    hops: int
    principal: str | None
    traceparent: str | None
    subject: str
    data: str | None
    body: bytes | None
    hash: bytes


COLUMNS = EventRow._fields


def event_rows(
    previous: bytes, batch: Sequence[Recorded], *, body_as_bytes: bool = False
) -> list[EventRow]:
    """Return the rows of a batch; ``previous`` is the hash of the row before.

    With ``body_as_bytes`` all bodies are stored as bytes: for one that Postgres refuses as
    ``data``.
    """
    rows = []
    for event in batch:
        recorded, previous = normalised_and_hashed(previous, event)
        rows.append(_event_row(recorded, None if body_as_bytes else _json(recorded), previous))
    return rows


def subject_parts(subject: str) -> tuple[str, str, str]:
    """Return tenant, actor id and type of a subject, as far as it has them."""
    tokens = subject.split(".")
    if len(tokens) == LAST_OF_TYPE:  # a subject of the contract
        return tokens[2], tokens[3], f"{tokens[4]}.{tokens[5]}"
    actor_id = tokens[3] if len(tokens) >= FIRST_OF_TYPE else ""
    return tokens[2], actor_id, ".".join(tokens[FIRST_OF_TYPE:LAST_OF_TYPE])


def _event_row(recorded: Recorded, data: str | None, own_hash: bytes) -> EventRow:
    tenant, actor_id, type_ = subject_parts(recorded.subject)
    return EventRow(  # by position, which takes half the time
        recorded.sequence,
        recorded.time,
        tenant,
        actor_id,
        type_,
        recorded.id,
        recorded.causation_id,
        recorded.correlation_id,
        recorded.hops,
        recorded.principal,
        recorded.traceparent,
        recorded.subject,
        data,
        recorded.raw if data is None else None,
        own_hash,
    )


def _json(recorded: Recorded) -> str | None:
    """Return the body as JSON text, or None if it is not JSON."""
    try:
        if isinstance(recorded.event, ev.Unrecognized):
            msgspec.json.decode(recorded.raw)
        return recorded.raw.decode() or None
    except DECODE_ERRORS:
        return None
