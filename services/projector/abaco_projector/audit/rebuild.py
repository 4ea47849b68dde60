"""Rebuild: folds the log into a shadow schema and switches to it, without an outage.

Only the read models are folded again. The verified copy is evidence: it is checked against the log
meanwhile and stays. If it differs, the events are copied again as well, to locate the difference
and, with ``force``, to replace the old copy.
"""

import asyncio

import msgspec

from abaco_projector.adapters.postgres_session import Session, quote_name
from abaco_projector.adapters.read_model_store import EVENTS, ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import ReadableLog, read_head
from abaco_projector.audit.copy_audit import CopyDiffers, check_ends
from abaco_projector.audit.shadow_schema import (
    Progress,
    ShadowSource,
    create_indexes,
    drop_schema,
    exclusive_session,
    fold_into,
    folded_shadow,
    read_live_schema,
)
from abaco_projector.audit.table_comparison import READ_MODELS, TableDifference, compare_tables
from abaco_projector.audit.verify import checkpoint
from abaco_projector.domain.history_difference import ended_early
from abaco_proto.errors import Conflict

NEXT_SCHEMA, OLD_SCHEMA = "abaco_next", "abaco_old"
MAX_SWITCH_LAG_EVENTS = 1000
PAUSE_SECONDS = 0.5
LOCK_TIMEOUT = "500ms"
"""Queries that arrive while the switch waits for its lock wait as long; so it gives up soon."""


class RebuildResult(msgspec.Struct, frozen=True):
    """The last event in the new tables, and how the old tables differed."""

    sequence: int
    differences: list[TableDifference]


async def rebuild(
    log: ReadableLog, dsn: str, progress: Progress, *, force: bool = False
) -> RebuildResult:
    """Build the shadow schema, compare, and switch; with ``force`` even if the copy differs.

    Raises:
        Difference: the verified copy differs from the log; nothing was switched.
    """
    async with open_store(dsn) as store:
        await migrate(store)
        await store.checkpoint(EVENTS)
    async with exclusive_session(dsn, NEXT_SCHEMA) as session:
        live = await read_live_schema(session)
        await drop_schema(session, OLD_SCHEMA)
        try:
            try:
                return await _Rebuild(
                    session, ShadowSource(log, dsn, live, READ_MODELS), progress, force
                ).run()
            except CopyDiffers:
                return await _Rebuild(session, ShadowSource(log, dsn, live), progress, force).run()
        finally:
            await drop_schema(session, NEXT_SCHEMA)
            await drop_schema(session, OLD_SCHEMA)


class _Rebuild(msgspec.Struct, frozen=True):
    """One attempt to rebuild."""

    session: Session
    source: ShadowSource
    progress: Progress
    force: bool

    async def run(self) -> RebuildResult:
        until = await self._read_target(self.session)
        async with folded_shadow(
            self.session, NEXT_SCHEMA, self.source, until, self.progress
        ) as store:
            with self.progress("indexing", 1) as advance:
                await create_indexes(self.session, self.source.live, NEXT_SCHEMA)
                advance(1)
            differences = await self._compare(store)
            return RebuildResult(await self._switch_when_free(store), differences)

    async def _read_target(self, session: Session) -> int:
        """Return the live checkpoint; with ``force``, at most the head of the log."""
        until = await checkpoint(session, self.source.live)
        head = await read_head(self.source.log)
        if head < until and not self.force:
            raise ended_early(head, until)
        return min(until, head)

    async def _catch_up(self, store: ReadModelStore) -> int:
        until = await self._read_target(store.session)
        await fold_into(store, self.source, until, self.progress, "catching up")
        return until

    async def _compare(self, store: ReadModelStore) -> list[TableDifference]:
        async with store.session.transaction("ISOLATION LEVEL REPEATABLE READ"):
            until = await self._catch_up(store)
            if not self.source.copies_events:
                await check_ends(store.session, self.source.copy_up_to(until))
            tables = self.source.tables
            with self.progress("comparing", len(tables)) as advance:
                compared = compare_tables(store.session, self.source.live, NEXT_SCHEMA, tables)
                found = [one async for one in compared]
                advance(len(tables))
        for table in found:
            if table.table == "events" and not self.force:
                raise table.first
        return found

    async def _switch_when_free(self, store: ReadModelStore) -> int:
        """Retry the switch until no query holds the tables for long."""
        while True:
            try:
                await self._catch_up_closely(store)
                return await self._switch(store)
            except Conflict:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _catch_up_closely(self, store: ReadModelStore) -> None:
        """Catch up before locking, until few events are missing."""
        while (
            await self._read_target(store.session) - await store.checkpoint(EVENTS)
            > MAX_SWITCH_LAG_EVENTS
        ):
            await self._catch_up(store)

    async def _switch(self, store: ReadModelStore) -> int:
        session = store.session
        names = {
            "live": quote_name(self.source.live),
            "next": quote_name(NEXT_SCHEMA),
            "old": quote_name(OLD_SCHEMA),
        }
        tables = ", ".join(f"{names['live']}.{table}" for table in self.source.tables)
        async with session.transaction():
            await session.run_sql(QUERIES["lock_out_vacuum"].format(tables=tables))
            await session.run_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            await session.fetch_sql(QUERIES["hold_checkpoint"].format(**names), EVENTS)
            until = await self._catch_up(store)
            await session.run_sql(QUERIES["make_old"].format(tables=tables, **names))
            for table in self.source.tables:
                await session.run_sql(QUERIES["switch_table"].format(table=table, **names))
            await session.fetch_sql(QUERIES["switch_checkpoint"].format(**names), EVENTS, until)
        return until
