"""Stored output checked against the log: the end of a run holds the size and digest of its output.

Output is in no event, so nothing can be said of output that is not stored whole, or whose run did
not end by itself: such outputs are counted. The check reads each byte once. It takes the digests
from the fold of the log, not from the live tables.
"""

import hashlib
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import msgspec

from abaco_projector.adapters.postgres_session import Session, quoted
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.domain import history_difference as d

MOST_IN_DATABASE = 1024 * 1024
"""Up to this many bytes Postgres puts an output together; a longer one is hashed as it is read."""

BUNCH_ROWS = 64


class OutputTally(msgspec.Struct, kw_only=True):
    """Outputs of attempts, by what could be said of them. ``first_missing`` names a run.

    ``checked`` are those that are what their runs wrote. ``expired`` were removed, as their actor
    wants it; ``missing`` are not stored whole, or not yet; of ``unsealed`` no digest is known.
    """

    checked: int = 0
    expired: int = 0
    missing: int = 0
    unsealed: int = 0
    first_missing: str = ""

    def __str__(self) -> str:
        """The report, one line."""
        checked = f"output of {self.checked} runs is what they wrote"
        unchecked = [
            f"{count} {what}"
            for count, what in (
                (self.expired, "expired"),
                (self.missing, f"not stored whole (the first is {self.first_missing})"),
                (self.unsealed, "of attempts without a recorded digest"),
            )
            if count
        ]
        return f"{checked}; not checked: {', '.join(unchecked)}" if unchecked else checked


async def check_output(session: Session, live: str, fresh: str) -> OutputTally:
    """Check all output in ``live`` against the executions in ``fresh``, within a transaction.

    Raises:
        Difference: the first output that is not what its run wrote.
    """
    tally = OutputTally()
    names: dict[str, Any] = {"live": quoted(live), "fresh": quoted(fresh)}
    query = QUERIES["output_of_runs"].format(**names, most=MOST_IN_DATABASE)
    async with aclosing(session.scan_found(query)) as bunches:
        async for bunch in bunches:
            for row in bunch:
                await _check(session, names, row, tally)
    found = await session.found(QUERIES["output_without_digest"].format(**names))
    tally.unsealed = int(found[0][0])
    return tally


async def _check(
    session: Session, names: dict[str, Any], row: Iterable[Any], tally: OutputTally
) -> None:
    tenant, actor_id, execution_id, attempt, size, digest, stored, end, overlapping, own, old = row
    run = f"output ({tenant}, {actor_id}, {execution_id}, attempt {attempt})"
    if not digest:
        return
    if end > size:
        raise d.output_beyond(run, size, end)
    if overlapping:
        raise d.output_overlaps(run)
    if stored < size:
        if old and not stored:
            tally.expired += 1
        else:
            tally.missing += 1
            tally.first_missing = tally.first_missing or execution_id
        return
    if size:
        own = own or await _digest(session, names, (tenant, execution_id, attempt))
        if own != digest:
            raise d.output_changed(run, digest, own)
        tally.checked += 1


async def _digest(session: Session, names: dict[str, Any], key: tuple[Any, ...]) -> str:
    digest = hashlib.sha256()
    query = QUERIES["output_of_run"].format(**names)
    async with aclosing(session.scan_found(query, *key, rows=BUNCH_ROWS)) as bunches:
        async for bunch in bunches:
            for (data,) in bunch:
                digest.update(data)
    return digest.hexdigest()
