"""The copy of the log checked against the log, while that is read for something else.

Theory: a row of the copy is a function of its event and of the hash before. So whoever reads the
log knows, byte by byte, what Postgres must give for the rows of a batch, asks for them, and
compares two strings. Where they are not equal, tables of a copy of its own tell what differs: see
:mod:`abaco_projector.app.table_comparison`.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from abaco_jetstream.ports import Batch
from abaco_projector.adapters.postgres_session import Session, open_session, quoted
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import History
from abaco_projector.domain.copy_format import row, table
from abaco_projector.domain.hash_chain import START, fit, link_fit
from abaco_projector.domain.history_difference import Difference
from abaco_proto.envelope import Recorded


class CopyDiffers(Difference):
    """The copy is not what the log says; what differs is still to be found."""


class Copy(msgspec.Struct, frozen=True):
    """The copy in the tables of ``schema``, which reaches at least up to event ``until``."""

    dsn: str
    schema: str
    until: int

    @property
    def events(self) -> str:
        """The name of its table."""
        return f"{quoted(self.schema)}.events"


class Audit:
    """Checks events in the order of the log."""

    def __init__(self, session: Session, copy: Copy, after: int, own_hash: bytes) -> None:
        """Begin behind an event that has been checked, and its hash; see :func:`auditing`."""
        self._session = session
        self._copy = copy
        self._after = after
        self._hash = own_hash

    async def check(self, events: Sequence[Recorded]) -> None:
        """Check some more; what is behind the end of the copy is no concern of ours.

        Raises:
            CopyDiffers: something is missing, too much, or different.
        """
        rows = []
        for recorded in map(fit, events):
            if recorded.sequence <= self._copy.until:
                self._hash = link_fit(self._hash, recorded)
                rows.append(row(recorded, self._hash))
        if not rows:
            return
        after, self._after = self._after, min(events[-1].sequence, self._copy.until)
        query = QUERIES["copied"].format(events=self._copy.events, after=after, last=self._after)
        if await self._session.copied(query) != table(rows):
            raise CopyDiffers(f"log and copy differ between the events {after} and {self._after}")


@asynccontextmanager
async def auditing(copy: Copy, after: int) -> AsyncGenerator[Audit, None]:
    """An audit of what is behind ``after``, on a session of its own."""
    async with open_session(copy.dsn) as session:
        own_hash = START
        if after:
            found = await session.found(QUERIES["hash_of"].format(events=copy.events), after)
            if not found:
                raise CopyDiffers(f"the copy has no event {after}")
            own_hash = found[0][0]
        yield Audit(session, copy, after, own_hash)


class Audited:
    """A log whose events are checked against their copy before they are given."""

    def __init__(self, log: History, copy: Copy) -> None:
        """The same events as those of ``log``."""
        self._log = log
        self._copy = copy

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the word of the port
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._log.last(filter)

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`; of all events only."""
        async with (
            auditing(self._copy, after) as audit,
            aclosing(self._log.follow(filters, after=after)) as batches,
        ):
            async for batch in batches:
                await audit.check(batch.events)
                yield batch


async def check_ends(session: Session, copy: Copy) -> None:
    """Nothing stands beyond the ends of the copy.

    Raises:
        CopyDiffers: something does.
    """
    if (await session.found(QUERIES["strays"].format(events=copy.events), copy.until))[0][0]:
        raise CopyDiffers(f"the copy goes on behind event {copy.until}")
