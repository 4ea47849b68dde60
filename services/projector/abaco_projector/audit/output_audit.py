"""Checks stored output against the log: ``finished`` holds the size and digest of a run's output.

Output is in no event, so output that is incomplete, or whose run was cut short, cannot be checked;
it is counted. The check reads each byte once, and takes digests from the fold of the log, not from
the live tables.
"""

import hashlib
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import msgspec

from abaco_projector.adapters.postgres_session import Session, quote_name
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.domain import history_difference as differences

MAX_DATABASE_HASH_BYTES = 1024 * 1024
"""Postgres hashes output up to this size; longer output is hashed here, as it is read."""

FETCH_ROWS = 64


class OutputTally(msgspec.Struct, kw_only=True):
    """The outputs of attempts, counted by result. ``first_missing`` is an execution id.

    ``checked``: equal to what the run wrote. ``expired``: removed after the actor's ``log_ex``.
    ``missing``: not stored completely, or not yet. ``unsealed``: no digest is known.
    """

    checked: int = 0
    expired: int = 0
    missing: int = 0
    unsealed: int = 0
    first_missing: str = ""

    def __str__(self) -> str:
        """The report, in one line."""
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
    names: dict[str, Any] = {"live": quote_name(live), "fresh": quote_name(fresh)}
    query = QUERIES["output_of_runs"].format(**names, most=MAX_DATABASE_HASH_BYTES)
    async with aclosing(session.scan_sql(query)) as batches:
        async for rows in batches:
            for row in rows:
                await _check_run(session, names, row, tally)
    found = await session.fetch_sql(QUERIES["output_without_digest"].format(**names))
    tally.unsealed = int(found[0][0])
    return tally


async def _check_run(
    session: Session, names: dict[str, Any], row: Iterable[Any], tally: OutputTally
) -> None:
    (
        tenant,
        actor_id,
        execution_id,
        attempt,
        size,
        digest,
        stored,
        end,
        overlapping,
        digest_in_database,
        expired,
    ) = row
    run = f"output ({tenant}, {actor_id}, {execution_id}, attempt {attempt})"
    if not digest:
        return
    if end > size:
        raise differences.output_beyond(run, size, end)
    if overlapping:
        raise differences.output_overlaps(run)
    if stored < size:
        if expired and not stored:
            tally.expired += 1
        else:
            tally.missing += 1
            tally.first_missing = tally.first_missing or execution_id
        return
    if size:
        digest_in_database = digest_in_database or await _digest(
            session, names, (tenant, execution_id, attempt)
        )
        if digest_in_database != digest:
            raise differences.output_changed(run, digest, digest_in_database)
        tally.checked += 1


async def _digest(session: Session, names: dict[str, Any], key: tuple[Any, ...]) -> str:
    digest = hashlib.sha256()
    query = QUERIES["output_of_run"].format(**names)
    async with aclosing(session.scan_sql(query, *key, rows=FETCH_ROWS)) as batches:
        async for rows in batches:
            for (data,) in rows:
                digest.update(data)
    return digest.hexdigest()
