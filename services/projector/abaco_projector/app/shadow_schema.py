"""Generations: the tables that are folded from the log, built in a schema beside the live ones.

Theory: a schema made by the same migrations, filled by the same store, holds what the live tables
should hold. A rebuild compares the two and puts the new tables in the place of the old, in one
transaction in which it holds the live checkpoint: the projector waits, then goes on with what
stands there. Names do not change, so queries do not notice. What was left half done is dropped
by the next try; who works on a schema holds a lock that ends with its connection.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress

import msgspec

from abaco_projector.adapters.postgres_session import Session, open_session, quoted
from abaco_projector.adapters.read_model_store import EVENTS, Store, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.copy_audit import Copy
from abaco_projector.app.log_range import History, span
from abaco_projector.app.log_reader_process import audited
from abaco_projector.app.pipeline import flow
from abaco_projector.app.projection import ahead, events
from abaco_projector.app.table_comparison import KEYS
from abaco_proto.errors import AbacoError, Refused, Undecodable

BATCH_EVENTS = 10000
MARK = "made by abaco, from the log"
"""The comment on a schema that may be dropped."""

Show = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Shows progress: of what, and out of how many; what it gives is told each step's size."""


@asynccontextmanager
async def alone(dsn: str, schema: str) -> AsyncGenerator[Session, None]:
    """A session on the live tables that alone may work on a schema.

    Raises:
        Refused: someone else does.
    """
    async with open_session(dsn) as session:
        if not (await session.found(QUERIES["try_lock"], schema))[0][0]:
            raise Refused(f"schema {schema}: another command is at work on it")
        try:
            yield session
        finally:  # the end of the connection does it, too, but the server may notice later
            with suppress(AbacoError):
                async with session.border():
                    await session.execute("unlock", schema)


async def live_schema(session: Session) -> str:
    """Where the live tables are."""
    return str((await session.found("SELECT current_schema()"))[0][0])


async def drop(session: Session, schema: str) -> None:
    """Remove a schema that we have made, with all that is in it.

    Raises:
        Refused: it is someone else's.
    """
    found = await session.found(QUERIES["schema_comment"], schema)
    if found and found[0][0] != MARK:
        raise Refused(f"schema {schema} is there already, and was not made by abaco")
    await session.run(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")


class Source(msgspec.Struct, frozen=True):
    """What a generation is made of: which tables, of which log.

    Where ``events`` is not among them, it stays empty, and the copy in the schema ``live`` is
    checked instead, as the log is read. Without ``logged`` a crash of Postgres empties the tables,
    and they are filled faster.
    """

    log: History
    dsn: str
    live: str
    tables: Sequence[str] = tuple(KEYS)
    logged: bool = True

    @property
    def copying(self) -> bool:
        """Whether events are copied."""
        return "events" in self.tables

    def copy(self, until: int) -> Copy:
        """The live copy up to there."""
        return Copy(self.dsn, self.live, until)

    def upto(self, until: int) -> History:
        """The log, up to there at least."""
        return self.log if self.copying else audited(self.log, self.copy(until))


@asynccontextmanager
async def created(session: Session, schema: str, source: Source) -> AsyncGenerator[Store, None]:
    """A store on a new, empty schema; what stood there before is dropped.

    It has no indexes but those of its keys, and nobody cleans it up: see :func:`index`.
    """
    await drop(session, schema)
    await session.run(
        f"CREATE SCHEMA {quoted(schema)}; COMMENT ON SCHEMA {quoted(schema)} IS '{MARK}'"
    )
    async with open_store(source.dsn, schema=schema, copying=source.copying) as store:
        await migrate(store)
        await store.checkpoint(EVENTS)
        for (name,) in await session.found(QUERIES["secondary_indexes"], schema):
            await session.run(f"DROP INDEX {name}")
        for table in KEYS:
            await store.session.run(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            if not source.logged:
                await store.session.run(f"ALTER TABLE {table} SET UNLOGGED")
        yield store


@asynccontextmanager
async def built(
    session: Session, schema: str, source: Source, until: int, show: Show
) -> AsyncGenerator[Store, None]:
    """A store on a new schema that holds the fold of the log up to ``until``; see :func:`created`.

    The quick way cannot tell which event Postgres refuses; if it refuses any, all is done again
    step by step.

    Raises:
        Difference: the log is not complete up to there, or not what was copied of it.
    """
    async with created(session, schema, source) as store:
        try:
            async with store.deferring():
                await fill(store, source, until, show, "folding")
        except Undecodable:
            quick = False
        else:
            quick = True
            yield store
    if not quick:
        async with created(session, schema, source) as store:
            await fill(store, source, until, show, "step by step")
            yield store


async def index(session: Session, live: str, schema: str) -> None:
    """Make what the live tables have: indexes, what the planner must know, and who cleans up."""
    for (definition,) in await session.found(QUERIES["index_definitions"], live, schema):
        await session.run(definition)
    for table in KEYS:
        name = f"{quoted(schema)}.{table}"
        await session.run(f"ANALYZE {name}; ALTER TABLE {name} RESET (autovacuum_enabled)")


async def fill(store: Store, source: Source, until: int, show: Show, what: str) -> None:
    """Fold the log from the store's checkpoint up to ``until``; raises as :func:`built`."""
    log = source.upto(until)
    after = await store.checkpoint(EVENTS)
    with show(what, max(until - after, 0)) as advance:
        batches = ahead(span(log, after=after, until=until), BATCH_EVENTS)
        async with aclosing(flow(events(log), store, batches, after)) as steps:
            async for size in steps:
                advance(size)
