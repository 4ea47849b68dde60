"""Shadow schemas: the tables folded from the log, built in a schema beside the live ones.

A schema with the same migrations, filled by the same store, holds what the live tables should
hold. A rebuild compares both and moves the new tables into the live schema, in one transaction that
locks the live checkpoint: the projector waits, then continues with the new tables. Table names do
not change, so queries are not affected. The next command drops an unfinished schema. A command
locks the schema that it works on until its connection ends.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress

import msgspec

from abaco_projector.adapters.postgres_session import Session, open_session, quote_name
from abaco_projector.adapters.read_model_store import EVENTS, ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import ReadableLog, read_range
from abaco_projector.app.pipeline import run_pipeline
from abaco_projector.app.projection import events_projection, read_ahead
from abaco_projector.audit.copy_audit import VerifiedCopy
from abaco_projector.audit.log_reader_process import audited
from abaco_projector.audit.table_comparison import TABLE_KEYS
from abaco_proto.errors import AbacoError, Refused, Undecodable

BATCH_EVENTS = 10000
SCHEMA_COMMENT = "made by abaco, from the log"
"""The comment on a schema that may be dropped."""

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Progress callback: takes what is done and how many steps it has; yields a function that takes the
number of finished steps.
"""


@asynccontextmanager
async def exclusive_session(dsn: str, schema: str) -> AsyncGenerator[Session, None]:
    """Open a session on the live tables, with an exclusive lock on a shadow schema.

    Raises:
        Refused: another command holds the lock.
    """
    async with open_session(dsn) as session:
        if not (await session.fetch_sql(QUERIES["try_lock"], schema))[0][0]:
            raise Refused(f"schema {schema}: another command is at work on it")
        try:
            yield session
        finally:  # the end of the connection unlocks as well, but the server may notice late
            with suppress(AbacoError):
                async with session.translated_errors():
                    await session.execute("unlock", schema)


async def read_live_schema(session: Session) -> str:
    """Return the name of the schema with the live tables."""
    return str((await session.fetch_sql("SELECT current_schema()"))[0][0])


async def drop_schema(session: Session, schema: str) -> None:
    """Drop a schema that this module made.

    Raises:
        Refused: something else made it.
    """
    found = await session.fetch_sql(QUERIES["schema_comment"], schema)
    if found and found[0][0] != SCHEMA_COMMENT:
        raise Refused(f"schema {schema} exists already, and was not made by abaco")
    await session.run_sql(f"DROP SCHEMA IF EXISTS {quote_name(schema)} CASCADE")


class ShadowSource(msgspec.Struct, frozen=True):
    """The source of a shadow schema: the log, and the tables to fold.

    Without ``events`` among the tables, that table stays empty, and the copy in the schema ``live``
    is checked instead as the log is read. Without ``logged`` the tables are UNLOGGED: faster, but
    Postgres empties them if it crashes.
    """

    log: ReadableLog
    dsn: str
    live: str
    tables: Sequence[str] = tuple(TABLE_KEYS)
    logged: bool = True

    @property
    def copies_events(self) -> bool:
        """Whether events are copied."""
        return "events" in self.tables

    def copy_up_to(self, until: int) -> VerifiedCopy:
        """Return the live copy up to event ``until``."""
        return VerifiedCopy(self.dsn, self.live, until)

    def log_up_to(self, until: int) -> ReadableLog:
        """Return the log, checked at least up to event ``until``."""
        return self.log if self.copies_events else audited(self.log, self.copy_up_to(until))


@asynccontextmanager
async def empty_shadow(
    session: Session, schema: str, source: ShadowSource
) -> AsyncGenerator[ReadModelStore, None]:
    """Create an empty schema, dropping an old one, and open a store on it.

    It has only the indexes of its keys, and no autovacuum; see :func:`create_indexes`.
    """
    await drop_schema(session, schema)
    name = quote_name(schema)
    await session.run_sql(f"CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS '{SCHEMA_COMMENT}'")
    async with open_store(source.dsn, schema=schema, copies_events=source.copies_events) as store:
        await migrate(store)
        await store.checkpoint(EVENTS)
        for (index,) in await session.fetch_sql(QUERIES["secondary_indexes"], schema):
            await session.run_sql(f"DROP INDEX {index}")
        for table in TABLE_KEYS:
            await store.session.run_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            if not source.logged:
                await store.session.run_sql(f"ALTER TABLE {table} SET UNLOGGED")
        yield store


@asynccontextmanager
async def folded_shadow(
    session: Session, schema: str, source: ShadowSource, until: int, progress: Progress
) -> AsyncGenerator[ReadModelStore, None]:
    """Create a schema with the fold of the log up to ``until``, and open a store on it.

    The write buffer hides which event Postgres refuses. If Postgres refuses one, the schema is
    folded again without the buffer.

    Raises:
        Difference: the log is incomplete, or differs from the verified copy.
    """
    async with empty_shadow(session, schema, source) as store:
        try:
            async with store.buffering_writes():
                await fold_into(store, source, until, progress, "folding")
        except Undecodable:
            buffered = False
        else:
            buffered = True
            yield store
    if not buffered:
        async with empty_shadow(session, schema, source) as store:
            await fold_into(store, source, until, progress, "step by step")
            yield store


async def create_indexes(session: Session, live: str, schema: str) -> None:
    """Create the indexes of the live tables, analyse, and turn autovacuum on again."""
    for (definition,) in await session.fetch_sql(QUERIES["index_definitions"], live, schema):
        await session.run_sql(definition)
    for table in TABLE_KEYS:
        name = f"{quote_name(schema)}.{table}"
        await session.run_sql(f"ANALYZE {name}; ALTER TABLE {name} RESET (autovacuum_enabled)")


async def fold_into(
    store: ReadModelStore, source: ShadowSource, until: int, progress: Progress, what: str
) -> None:
    """Fold the log from the store's checkpoint up to ``until``; raises as :func:`folded_shadow`."""
    log = source.log_up_to(until)
    after = await store.checkpoint(EVENTS)
    with progress(what, max(until - after, 0)) as advance:
        batches = read_ahead(read_range(log, after=after, until=until), BATCH_EVENTS)
        async with aclosing(run_pipeline(events_projection(log), store, batches, after)) as steps:
            async for size in steps:
                advance(size)
