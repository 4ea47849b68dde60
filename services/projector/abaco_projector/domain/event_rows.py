"""Rows of the table ``events``: the verified copy of the log, one row an event, whatever it holds.

A body is kept once. Where it is JSON text that Postgres takes, it is ``data``, whose type keeps
the text as it is, byte by byte, and ``body`` is null; where it is not, ``data`` is null.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from abaco_projector.domain.hash_chain import fit, link_fit
from abaco_proto import events as ev
from abaco_proto.codec import UNREADABLE
from abaco_proto.envelope import Recorded

FIRST_OF_TYPE, LAST_OF_TYPE = 4, 6
"""Where the type stands among the tokens of ``abaco.event.<tenant>.<actor_id>.<entity>.<verb>``."""


class Entry(NamedTuple):
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
    traceparent: str | None
    subject: str
    data: str | None
    body: bytes | None
    hash: bytes


COLUMNS = Entry._fields


def entries(previous: bytes, batch: Sequence[Recorded], *, plain: bool = False) -> list[Entry]:
    """The rows of a batch behind the row with the hash ``previous``.

    ``plain`` bodies are kept as bytes only: the way out when Postgres refuses one as ``data``.
    """
    rows = []
    for recorded in map(fit, batch):
        previous = link_fit(previous, recorded)
        rows.append(_entry(recorded, None if plain else _json(recorded), previous))
    return rows


def place_of(subject: str) -> tuple[str, str, str]:
    """Tenant, actor and type, as far as the subject of an event has them."""
    tokens = subject.split(".")
    if len(tokens) == LAST_OF_TYPE:  # most: nobody's in particular
        return tokens[2], tokens[3], f"{tokens[4]}.{tokens[5]}"
    actor_id = tokens[3] if len(tokens) >= FIRST_OF_TYPE else ""
    return tokens[2], actor_id, ".".join(tokens[FIRST_OF_TYPE:LAST_OF_TYPE])


def _entry(recorded: Recorded, data: str | None, own_hash: bytes) -> Entry:
    tenant, actor_id, type_ = place_of(recorded.subject)
    return Entry(
        seq=recorded.sequence,
        time=recorded.time,
        tenant=tenant,
        actor_id=actor_id,
        type=type_,
        id=recorded.id,
        causation_id=recorded.causation_id,
        correlation_id=recorded.correlation_id,
        hops=recorded.hops,
        traceparent=recorded.traceparent,
        subject=recorded.subject,
        data=data,
        body=recorded.raw if data is None else None,
        hash=own_hash,
    )


def _json(recorded: Recorded) -> str | None:
    """The body as JSON text; None when it is none."""
    try:
        if isinstance(recorded.event, ev.Unrecognized):
            msgspec.json.decode(recorded.raw)
        return recorded.raw.decode() or None
    except UNREADABLE:
        return None
