"""The read models in Postgres: states out, states in, and the checkpoint in the same transaction.

Only this module imports ``asyncpg``. What it raises says what to do: ``Unavailable`` (wait, open
another store, go on from its checkpoint), ``Undecodable`` (this very data is refused, and would be
again).
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import msgspec

from abaco_projector import records
from abaco_projector.chunks import chunks, key_of
from abaco_projector.clean import clean
from abaco_projector.event_rows import event_row
from abaco_projector.queries import QUERIES
from abaco_projector.rows import Changes, fold
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Malformed, Unavailable, Undecodable
from abaco_proto.fold import States
from abaco_proto.keys import Keys, keys_of
from abaco_proto.log import RecordedOutput

logger = logging.getLogger(__name__)

EVENTS, OUTPUT = "events", "output"
"""The names of the two checkpoints."""

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 60.0
SLOW_SECONDS = 3600.0
"""A purge may end a million executions, and a new schema may rewrite as many rows."""

SESSION = {
    "application_name": "abaco-projector",
    "timezone": "UTC",
    "jit": "off",
    # What a crash of the server takes with it is folded again: rows and checkpoint go together.
    "synchronous_commit": "off",
}

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are about the data: data exception, constraint, program limit."""

ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
    OverflowError,
    RecursionError,
)

Item = TypeVar("Item", Recorded, RecordedOutput)


class Store:
    """One connection. After ``Unavailable`` it is of no use any more."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Take over an open connection; see :func:`open_store`."""
        self._connection = connection

    # -- projections -----------------------------------------------------------------------------

    async def checkpoint(self, name: str) -> int:
        """The last sequence that is in the rows; 0 at the beginning."""
        async with self._transaction():
            await self._execute("create_checkpoint", name)
            return int(await self._value("read_checkpoint", name))

    async def apply_events(self, batch: Sequence[Recorded], *, after: int) -> None:
        """Fold events into the rows; those that are in them already change nothing.

        ``after`` is the checkpoint the caller started from, or the last sequence it gave before.
        """
        unrecognized = await self._advance(EVENTS, batch, after, self._write_events)
        for recorded in unrecognized:
            logger.warning("event %d of %s is not understood", recorded.sequence, recorded.subject)

    async def apply_output(self, batch: Sequence[RecordedOutput], *, after: int) -> None:
        """Store output; what is stored already changes nothing. ``after`` as above."""
        await self._advance(OUTPUT, batch, after, self._write_output)

    async def skip(self, name: str, sequence: int) -> None:
        """Leave out one message for good, and count it."""
        async with self._transaction():
            await self._go_to(name, sequence, skipped=1)

    async def _advance(
        self,
        name: str,
        batch: Sequence[Item],
        after: int,
        write: Callable[[Sequence[Item]], Awaitable[list[Item]]],
    ) -> list[Item]:
        async with self._transaction():
            done = int(await self._value("lock_checkpoint", name) or 0)
            if done < after:
                raise Unavailable(f"the checkpoint {name} went back from {after} to {done}")
            fresh = [item for item in batch if item.sequence > done]
            if not fresh:
                return []
            skipped = await write(fresh)
            await self._go_to(name, fresh[-1].sequence, skipped=len(skipped))
        return skipped

    async def _go_to(self, name: str, sequence: int, *, skipped: int) -> None:
        await self._execute("advance_checkpoint", name, sequence, skipped)
        if name == EVENTS:
            await self._execute("notify", str(sequence))

    async def _write_events(self, batch: Sequence[Recorded]) -> list[Recorded]:
        events = [clean(recorded) for recorded in batch]
        changes = fold(await self._load(keys_of(events)), events)
        await self._write(changes)
        await self._execute("write_events", *_columns(map(event_row, batch), 14))
        return changes.unrecognized

    async def _load(self, keys: Keys) -> States:
        actors = executions = workers = "[]"
        if keys.actors:
            actors = await self._value("load_actors", *_columns(keys.actors, 2))
        if keys.executions:
            executions = await self._value("load_executions", *_columns(keys.executions, 3))
        if keys.workers or keys.runs:
            columns = (*_columns(keys.workers, 2), *_columns(keys.runs, 3))
            workers = await self._value("load_workers", *columns)
        return records.decode_states(actors, executions, workers)

    async def _write(self, changes: Changes) -> None:
        states = changes.states
        if states.actors:
            await self._execute("write_actors", records.actor_rows(states.actors))
        if states.totals:
            await self._execute("write_totals", records.totals_rows(states.totals))
        if states.executions:
            await self._execute("write_executions", records.execution_rows(states.executions))
        if states.workers:
            await self._execute("write_workers", records.worker_rows(states.workers))
        if changes.subscriptions:
            rows = records.subscription_rows(changes.subscriptions)
            await self._execute("write_subscriptions", rows)
        for s in changes.sweeps:
            what = (s.status.value, s.status_message, s.finished_at, s.spared)
            parameters = (*s.key, s.up_to_ordinal, *what)
            await self._execute("sweep", *parameters, seconds=SLOW_SECONDS)

    async def _write_output(self, batch: Sequence[RecordedOutput]) -> list[RecordedOutput]:
        outputs = [recorded.output for recorded in batch]
        keys = _columns({key_of(output) for output in outputs}, 3)
        found = await self._connection.fetch(QUERIES["load_output_ends"], *keys)
        ends = {(t, execution_id, attempt): end for t, execution_id, attempt, end in found}
        rows = [msgspec.structs.astuple(chunk) for chunk in chunks(ends, outputs)]
        if rows:
            await self._execute("write_chunks", *_columns(rows, 5))
        return []

    # -- schema ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def migrating(self) -> AsyncGenerator[set[int], None]:
        """Be the only one to change the schema; gives the numbers of what was applied before."""
        async with self._border():
            await self._execute("lock_migrations", seconds=SLOW_SECONDS)
            await self._execute("create_migrations")
            applied = {int(n) for (n,) in await self._connection.fetch(QUERIES["read_migrations"])}
        yield applied
        async with self._border():
            await self._execute("unlock_migrations")

    async def migrate(self, number: int, name: str, sql: str) -> None:
        """Apply one migration and remember that."""
        logger.info("database schema %04d: %s", number, name)
        async with self._transaction():
            await self._connection.execute(sql, timeout=SLOW_SECONDS)
            await self._execute("record_migration", number, name)

    # -- the border ------------------------------------------------------------------------------

    async def _execute(self, query: str, *parameters: Any, seconds: float | None = None) -> None:
        await self._connection.execute(QUERIES[query], *parameters, timeout=seconds)

    async def _value(self, query: str, *parameters: Any) -> Any:
        return await self._connection.fetchval(QUERIES[query], *parameters)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None, None]:
        """All or nothing.

        Only refused data is rolled back here; any other way out of the block leaves that to the
        end of the connection, so that nothing waits for a server that hangs.
        """
        async with self._border():
            await self._connection.execute("BEGIN")
            try:
                async with self._border():
                    yield
            except Undecodable:
                await self._connection.execute("ROLLBACK")
                raise
            await self._connection.execute("COMMIT")

    @asynccontextmanager
    async def _border(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except ERRORS as error:
            raise _translated(error) from error


@asynccontextmanager
async def open_store(dsn: str) -> AsyncGenerator[Store, None]:
    """A store on a connection of its own, cut off at the end of the block.

    Raises:
        Unavailable: the database cannot be reached, or does not let us in.
        Malformed: ``dsn`` is no address of a database.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings=SESSION,
        )
    except ValueError as error:
        raise Malformed(f"ABACO_POSTGRES_DSN: {error}") from None
    except ERRORS as error:
        raise _translated(error) from error
    try:
        yield Store(connection)
    finally:
        connection.terminate()


def _translated(error: BaseException) -> Unavailable | Undecodable:
    words = str(error) or type(error).__name__
    state = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, ValueError | OverflowError | RecursionError) or state.startswith(
        REFUSED_CLASSES
    ):
        return Undecodable(words)
    return Unavailable(f"the database (Postgres): {words}")


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as columns, for ``unnest``."""
    table = list(rows)
    return [[row[at] for row in table] for at in range(width)]
