"""Rebuild: a new generation of the tables takes the place of the live one, without an outage.

Theory: the read models are folded anew; the copy of the log is no read model but evidence. It is
checked against the log meanwhile and stays where it is. Only where the two differ the events are
copied once more, so that what differs can be named, and, by force, put in the place of the old.
"""

import asyncio

import msgspec

from abaco_projector.adapters.postgres_session import Session, quoted
from abaco_projector.adapters.read_model_store import EVENTS, Store, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.copy_audit import CopyDiffers, check_ends
from abaco_projector.app.log_range import History, head_of
from abaco_projector.app.shadow_schema import (
    Show,
    Source,
    alone,
    built,
    drop,
    fill,
    index,
    live_schema,
)
from abaco_projector.app.table_comparison import MODELS, Compared, comparison
from abaco_projector.app.verify import checkpoint
from abaco_projector.domain.history_difference import ended_early
from abaco_proto.errors import Conflict

NEXT, OLD = "abaco_next", "abaco_old"
NEAR_EVENTS = 1000
PAUSE_SECONDS = 0.5
LOCK_TIMEOUT = "500ms"
"""Who asks for a table behind us waits as long as we do: a long query must not stop short ones."""


class Rebuilt(msgspec.Struct, frozen=True):
    """Up to which event, and what was different in the tables that stood there before."""

    sequence: int
    differences: list[Compared]


async def rebuild(log: History, dsn: str, show: Show, *, force: bool = False) -> Rebuilt:
    """Build, compare, switch. With ``force`` even where the copy of the log says something else.

    Raises:
        Difference: the log is not what was copied of it; nothing was switched.
    """
    async with open_store(dsn) as store:
        await migrate(store)
        await store.checkpoint(EVENTS)
    async with alone(dsn, NEXT) as session:
        live = await live_schema(session)
        await drop(session, OLD)
        try:
            try:
                return await _Rebuild(session, Source(log, dsn, live, MODELS), show, force).run()
            except CopyDiffers:
                return await _Rebuild(session, Source(log, dsn, live), show, force).run()
        finally:
            await drop(session, NEXT)
            await drop(session, OLD)


class _Rebuild(msgspec.Struct, frozen=True):
    """One try; with ``force`` even against the copy."""

    session: Session
    source: Source
    show: Show
    force: bool

    async def run(self) -> Rebuilt:
        until = await self._target(self.session)
        async with built(self.session, NEXT, self.source, until, self.show) as store:
            with self.show("indexing", 1) as advance:
                await index(self.session, self.source.live, NEXT)
                advance(1)
            differences = await self._compared(store)
            return Rebuilt(await self._switched(store), differences)

    async def _target(self, session: Session) -> int:
        """How far the live tables are; with force, no further than the log."""
        until = await checkpoint(session, self.source.live)
        head = await head_of(self.source.log)
        if head < until and not self.force:
            raise ended_early(head, until)
        return min(until, head)

    async def _catch_up(self, store: Store) -> int:
        until = await self._target(store.session)
        await fill(store, self.source, until, self.show, "catching up")
        return until

    async def _compared(self, store: Store) -> list[Compared]:
        async with store.session.transaction("ISOLATION LEVEL REPEATABLE READ"):
            until = await self._catch_up(store)
            if not self.source.copying:
                await check_ends(store.session, self.source.copy(until))
            tables = self.source.tables
            with self.show("comparing", len(tables)) as advance:
                compared = comparison(store.session, self.source.live, NEXT, tables)
                found = [one async for one in compared]
                advance(len(tables))
        for one in found:
            if one.table == "events" and not self.force:
                raise one.first
        return found

    async def _switched(self, store: Store) -> int:
        """Try until nobody else holds the tables for long."""
        while True:
            try:
                await self._near(store)
                return await self._switch(store)
            except Conflict:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _near(self, store: Store) -> None:
        """Catch up while nobody waits for us."""
        while await self._target(store.session) - await store.checkpoint(EVENTS) > NEAR_EVENTS:
            await self._catch_up(store)

    async def _switch(self, store: Store) -> int:
        session = store.session
        names = {"live": quoted(self.source.live), "next": quoted(NEXT), "old": quoted(OLD)}
        tables = ", ".join(f"{names['live']}.{table}" for table in self.source.tables)
        async with session.transaction():
            await session.run(QUERIES["lock_out_vacuum"].format(tables=tables))
            await session.run(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            await session.found(QUERIES["hold_checkpoint"].format(**names), EVENTS)
            until = await self._catch_up(store)
            await session.run(QUERIES["make_old"].format(tables=tables, **names))
            for table in self.source.tables:
                await session.run(QUERIES["switch_table"].format(table=table, **names))
            await session.found(QUERIES["switch_checkpoint"].format(**names), EVENTS, until)
        return until
