"""The read models in Postgres. Rows and checkpoint are written in the same transaction.

A store works on the tables of one schema: the live one, or a shadow schema.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from abaco_projector.adapters.postgres_session import SLOW_STATEMENT_SECONDS, Session, open_session
from abaco_projector.domain import row_codec
from abaco_projector.domain.batch_fold import fold
from abaco_projector.domain.event_rows import COLUMNS, EventRow, event_rows
from abaco_projector.domain.hash_chain import GENESIS_HASH
from abaco_projector.domain.output_chunks import Chunk, chunks, key_of
from abaco_projector.domain.sanitise import sanitise
from abaco_projector.domain.state_cache import LoadedRows, StateCache, merge
from abaco_projector.domain.write_buffer import WriteBuffer
from abaco_proto.envelope import Recorded, unrecognized_warning
from abaco_proto.errors import AbacoError, Conflict, Unavailable
from abaco_proto.fold import States
from abaco_proto.output import RecordedOutput
from abaco_proto.state_keys import StateKeys, state_keys
from abaco_telemetry.context import event_context

logger = logging.getLogger(__name__)

EVENTS, OUTPUT = "events", "output"
"""The names of the two checkpoints."""

WaitForWrite = Callable[[], Awaitable[None]]
"""Waits until no write of the same store is in progress."""


class Checkpoint(msgspec.Struct, frozen=True):
    """The last event in the rows, its chain hash, and the number of switches to a shadow schema."""

    sequence: int
    hash: bytes
    generation: int


class PreparedBatch(msgspec.Struct, frozen=True):
    """A batch up to event ``sequence``, ready to be written after ``checkpoint``."""

    checkpoint: Checkpoint
    sequence: int
    rows: list[EventRow]
    inserted: list[list[Any]]
    statements: list[row_codec.Statement]
    unrecognized: list[Recorded]


class ReadModelStore:
    """The tables of one schema. Unusable after ``Unavailable``.

    A batch of events is prepared (copied, folded, encoded) and then written. The next batch may be
    prepared during the write: it starts from cached states, which assume that the write succeeds.
    A failed write therefore clears the cache.
    """

    def __init__(
        self, session: Session, *, notifies: bool = True, copies_events: bool = True
    ) -> None:
        """Use an open session; see :func:`open_store`.

        With ``notifies``, each checkpoint is announced to listeners. Without ``copies_events``, the
        table ``events`` stays empty.
        """
        self.session = session
        self._notifies = notifies
        self._copies_events = copies_events
        self._cache = StateCache()
        self._checkpoint: Checkpoint | None = None
        self._write_buffer: WriteBuffer | None = None

    # -- projections -----------------------------------------------------------------------------

    async def checkpoint(self, name: str) -> int:
        """Return the last sequence in the rows, 0 if there is none. Call this first."""
        self.forget()
        async with self.session.transaction():
            await self.session.execute("create_checkpoint", name)
            done = int(await self.session.fetch_value("lock_checkpoint", name))
            if name == EVENTS:  # rows beyond the checkpoint are not valid
                await self.session.execute("remove_beyond", done)
        return done

    async def apply_events(
        self, batch: Sequence[Recorded], *, after: int, body_as_bytes: bool = False
    ) -> None:
        """Copy events and fold them into the rows; events that are in the rows change nothing.

        ``after`` is the checkpoint the caller started from, or the last sequence it passed before.
        """
        while True:
            prepared = await self.prepare(batch, after=after, body_as_bytes=body_as_bytes)
            try:
                return await self.write(prepared)
            except Conflict:
                continue  # another projector has written, or the tables were switched

    async def prepare(
        self,
        batch: Sequence[Recorded],
        *,
        after: int,
        wait_for_write: WaitForWrite | None = None,
        body_as_bytes: bool = False,
    ) -> PreparedBatch:
        """Return a batch, without the events in the rows, ready to be written after the previous
        one.

        ``wait_for_write`` is awaited before anything is loaded. ``body_as_bytes``: see
        :func:`abaco_projector.domain.event_rows.event_rows`.
        """
        if self._checkpoint is None and wait_for_write is not None:
            await wait_for_write()
        if self._checkpoint is None:
            self._checkpoint = await self._read_checkpoint()
        checkpoint = self._checkpoint
        if checkpoint.sequence < after:
            raise _checkpoint_went_back(EVENTS, after, checkpoint.sequence)
        new = [recorded for recorded in batch if recorded.sequence > checkpoint.sequence]
        events = [sanitise(recorded) for recorded in new]
        keys = state_keys(events)
        missing, loaded = self._cache.missing(keys), LoadedRows(self._cache.known(keys), {})
        if any(getattr(missing, name) for name in StateKeys.__struct_fields__):
            if wait_for_write is not None:
                await wait_for_write()
            if self._checkpoint is not checkpoint:  # the write in progress failed
                return await self.prepare(batch, after=after, body_as_bytes=body_as_bytes)
            await self._flush_write_buffer()
            found = await self._load(missing)
            loaded = LoadedRows(merge(loaded.states, found.states), found.last_ordinals)
        changes = fold(loaded.states, events)
        rows = (
            event_rows(checkpoint.hash, new, body_as_bytes=body_as_bytes)
            if self._copies_events
            else []
        )
        self._cache.update(loaded, changes)
        if self._write_buffer is not None:
            changes = self._write_buffer.add(changes)
        if new:
            last_hash = rows[-1].hash if rows else GENESIS_HASH
            self._checkpoint = Checkpoint(new[-1].sequence, last_hash, checkpoint.generation)
        return PreparedBatch(
            checkpoint,
            self._checkpoint.sequence,
            rows,
            row_codec.inserted_rows(changes),
            row_codec.statements(changes),
            changes.unrecognized,
        )

    async def write(self, prepared: PreparedBatch) -> None:
        """Write a batch.

        Raises:
            Conflict: the checkpoint has changed since the batch was prepared.
            Undecodable: Postgres refuses data of the batch.
        """
        if prepared.sequence == prepared.checkpoint.sequence:
            return
        try:
            async with self.session.transaction():
                await self._lock_checkpoint(prepared.checkpoint)
                await self._copy("events", COLUMNS, prepared.rows)
                await self._write_states(prepared.inserted, prepared.statements)
                skipped = len(prepared.unrecognized)
                await self._advance(EVENTS, prepared.sequence, skipped=skipped)
        except AbacoError:
            self.forget()
            raise
        for recorded in prepared.unrecognized:
            with event_context(recorded):
                logger.warning("%s", unrecognized_warning(recorded))

    async def skip_event(self, recorded: Recorded) -> None:
        """Skip an event in the read models for good, and count it. It is still copied to
        ``events``.
        """
        self.forget()
        checkpoint = await self._read_checkpoint()
        async with self.session.transaction():
            await self._lock_checkpoint(checkpoint)
            if self._copies_events:
                rows = event_rows(checkpoint.hash, [recorded], body_as_bytes=True)
                await self.session.copy_in("events", COLUMNS, rows)
            await self._advance(EVENTS, recorded.sequence, skipped=1)

    @asynccontextmanager
    async def buffering_writes(self) -> AsyncGenerator[None, None]:
        """Buffer writes inside the block. Only for a schema that has no readers and is dropped on
        failure.
        """
        self._write_buffer = WriteBuffer()
        yield
        await self._flush_write_buffer()
        self._write_buffer = None

    @property
    def buffers_writes(self) -> bool:
        """Whether rows may be older than the checkpoint, so that a failed write does not name its
        event.
        """
        return self._write_buffer is not None

    async def _flush_write_buffer(self) -> None:
        if self._write_buffer is None:
            return
        changes = self._write_buffer.take_all()
        async with self.session.transaction():
            await self._write_states(
                row_codec.inserted_rows(changes), row_codec.statements(changes)
            )

    async def _write_states(
        self, inserted: list[list[Any]], statements: list[row_codec.Statement]
    ) -> None:
        await self._copy("executions", row_codec.EXECUTION_COLUMNS, inserted)
        for query, parameters in statements:
            await self.session.execute(query, *parameters, seconds=SLOW_STATEMENT_SECONDS)

    async def _copy(self, table: str, columns: Sequence[str], rows: list[Any]) -> None:
        if rows:
            await self.session.copy_in(table, columns, rows)

    def forget(self) -> None:
        """Clear the cache: the rows do not hold what was prepared."""
        self._cache, self._checkpoint = StateCache(), None

    async def _read_checkpoint(self) -> Checkpoint:
        """Read the checkpoint. If the copied event is missing, ``verify`` reports it."""
        async with self.session.translated_errors():
            sequence, generation = (await self.session.rows("read_checkpoint", EVENTS))[0]
            found = await self.session.fetch_value("read_hash", sequence)
        return Checkpoint(sequence, found or GENESIS_HASH, generation)

    async def _lock_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Lock the checkpoint until the transaction ends, and check that it has not changed."""
        found = (await self.session.rows("lock_checkpoint", EVENTS))[0]
        if tuple(found) != (checkpoint.sequence, checkpoint.generation):
            raise Conflict(f"the checkpoint {EVENTS} is {found[0]}, not {checkpoint.sequence}")

    async def apply_output(self, batch: Sequence[RecordedOutput], *, after: int) -> None:
        """Store output; chunks that are stored change nothing. ``after`` as in
        :meth:`apply_events`.
        """
        async with self.session.transaction():
            done = int((await self.session.rows("lock_checkpoint", OUTPUT))[0][0])
            if done < after:
                raise _checkpoint_went_back(OUTPUT, after, done)
            new = [recorded for recorded in batch if recorded.sequence > done]
            if new:
                await self._write_output(new)
                await self._advance(OUTPUT, new[-1].sequence)

    async def skip_output(self, recorded: RecordedOutput) -> None:
        """Skip one chunk for good, and count it."""
        async with self.session.transaction():
            await self._advance(OUTPUT, recorded.sequence, skipped=1)

    async def _advance(self, name: str, sequence: int, *, skipped: int = 0) -> None:
        await self.session.execute("advance_checkpoint", name, sequence, skipped)
        if name == EVENTS and self._notifies:
            await self.session.execute("notify", str(sequence))

    async def load(self, keys: StateKeys) -> States:
        """Return the states in the rows."""
        return (await self._load(keys)).states

    async def _load(self, keys: StateKeys) -> LoadedRows:
        actors = executions = workers = "[]"
        last_ordinals: Sequence[Any] = []
        async with self.session.translated_errors():
            if keys.actors:
                columns = _to_columns(keys.actors, 2)
                actors = await self.session.fetch_value("load_actors", *columns)
                last_ordinals = await self.session.rows("load_last_ordinals", *columns)
            if keys.executions:
                columns = _to_columns(keys.executions, 3)
                executions = await self.session.fetch_value("load_executions", *columns)
            if keys.workers or keys.runs:
                columns = [*_to_columns(keys.workers, 2), *_to_columns(keys.runs, 3)]
                workers = await self.session.fetch_value("load_workers", *columns)
        states = row_codec.decode_states(actors, executions, workers)
        return LoadedRows(
            states, {(tenant, actor_id): most for tenant, actor_id, most in last_ordinals}
        )

    async def _write_output(self, batch: Sequence[RecordedOutput]) -> None:
        outputs = [recorded.output for recorded in batch]
        keys = _to_columns({key_of(output) for output in outputs}, 3)
        found = await self.session.rows("load_output_ends", *keys)
        ends = {(t, execution_id, attempt): end for t, execution_id, attempt, end in found}
        await self._insert_chunks(chunks(ends, outputs))

    async def insert_chunks(self, rows: Sequence[Chunk]) -> None:
        """Store rows of output; rows that exist are left as they are."""
        async with self.session.transaction():
            await self._insert_chunks(rows)

    async def _insert_chunks(self, rows: Sequence[Chunk]) -> None:
        if rows:
            columns = _to_columns(map(msgspec.structs.astuple, rows), 5)
            await self.session.execute("write_chunks", *columns)

    # -- schema ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def migration_lock(self) -> AsyncGenerator[set[int], None]:
        """Hold the migration lock; yield the numbers of the applied migrations."""
        async with self.session.translated_errors():
            await self.session.execute("lock_migrations", seconds=SLOW_STATEMENT_SECONDS)
            await self.session.execute("create_migrations")
            applied = {int(row[0]) for row in await self.session.rows("read_migrations")}
        yield applied
        async with self.session.translated_errors():
            await self.session.execute("unlock_migrations")

    async def migrate(self, number: int, name: str, sql: str) -> None:
        """Apply one migration and record it."""
        logger.info("migrating the database schema to %04d: %s", number, name)
        async with self.session.transaction():
            await self.session.run_sql(sql)
            await self.session.execute("record_migration", number, name)


@asynccontextmanager
async def open_store(
    dsn: str, *, schema: str | None = None, copies_events: bool = True
) -> AsyncGenerator[ReadModelStore, None]:
    """Open a store on its own session; raises as :func:`.postgres_session.open_session`."""
    async with open_session(dsn, schema=schema) as session:
        yield ReadModelStore(session, notifies=schema is None, copies_events=copies_events)


def _checkpoint_went_back(name: str, after: int, done: int) -> Unavailable:
    return Unavailable(f"the checkpoint {name} went back from {after} to {done}")


def _to_columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Turn rows into columns, for ``unnest``."""
    table = list(rows)
    return [[row[at] for row in table] for at in range(width)]
