"""Checks the verified copy against the log, while the log is read for another purpose.

A row of the copy is a function of its event and of the previous hash. So the reader of the log
computes the bytes that Postgres must return for the rows of a batch, queries them, and compares two
byte strings. If they differ, :mod:`abaco_projector.audit.table_comparison` finds the difference.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from abaco_jetstream.ports import Batch
from abaco_projector.adapters.postgres_session import Session, open_session, quote_name
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import ReadableLog
from abaco_projector.domain.copy_format import expected_copy, expected_row
from abaco_projector.domain.hash_chain import GENESIS_HASH, normalised_and_hashed
from abaco_projector.domain.history_difference import Difference
from abaco_proto.envelope import Recorded


class CopyDiffers(Difference):
    """The verified copy differs from the log; the difference is not located yet."""


class VerifiedCopy(msgspec.Struct, frozen=True):
    """The table ``events`` in ``schema``, which reaches at least up to event ``until``."""

    dsn: str
    schema: str
    until: int

    @property
    def events(self) -> str:
        """The quoted name of the table."""
        return f"{quote_name(self.schema)}.events"


class CopyAudit:
    """Checks events in the order of the log."""

    def __init__(
        self, session: Session, copy: VerifiedCopy, after: int, previous_hash: bytes
    ) -> None:
        """Start after a checked event and its hash; see :func:`open_audit`."""
        self._session = session
        self._copy = copy
        self._after = after
        self._hash = previous_hash

    async def check(self, events: Sequence[Recorded]) -> None:
        """Check the next events; events after the end of the copy are ignored.

        Raises:
            CopyDiffers: a row is missing, different, or has no event.
        """
        rows = []
        for event in events:
            if event.sequence <= self._copy.until:
                recorded, self._hash = normalised_and_hashed(self._hash, event)
                rows.append(expected_row(recorded, self._hash))
        if not rows:
            return
        after, self._after = self._after, min(events[-1].sequence, self._copy.until)
        query = QUERIES["copied"].format(events=self._copy.events, after=after, last=self._after)
        if await self._session.copy_out(query) != expected_copy(rows):
            raise CopyDiffers(f"log and copy differ between the events {after} and {self._after}")


@asynccontextmanager
async def open_audit(copy: VerifiedCopy, after: int) -> AsyncGenerator[CopyAudit, None]:
    """Open an audit of the events after ``after``, on its own session."""
    async with open_session(copy.dsn) as session:
        previous_hash = GENESIS_HASH
        if after:
            found = await session.fetch_sql(QUERIES["hash_of"].format(events=copy.events), after)
            if not found:
                raise CopyDiffers(f"the copy has no event {after}")
            previous_hash = found[0][0]
        yield CopyAudit(session, copy, after, previous_hash)


class AuditedLog:
    """A log whose events are checked against the verified copy before they are returned."""

    def __init__(self, log: ReadableLog, copy: VerifiedCopy) -> None:
        """Return the events of ``log``."""
        self._log = log
        self._copy = copy

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the port's name
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._log.last(filter)

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`; only for all events."""
        async with (
            open_audit(self._copy, after) as audit,
            aclosing(self._log.follow(filters, after=after)) as batches,
        ):
            async for batch in batches:
                await audit.check(batch.events)
                yield batch


async def check_ends(session: Session, copy: VerifiedCopy) -> None:
    """Check that the copy has no rows before its first or after its last event.

    Raises:
        CopyDiffers: there is such a row.
    """
    if (await session.fetch_sql(QUERIES["strays"].format(events=copy.events), copy.until))[0][0]:
        raise CopyDiffers(f"the copy goes on after event {copy.until}")
