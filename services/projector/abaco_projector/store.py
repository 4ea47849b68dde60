"""The read models in Postgres: states out, states in, and the checkpoint in the same transaction.

A store works on the tables of one schema: the live ones, or a generation in the making.
"""

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from abaco_projector import records
from abaco_projector.chain import START
from abaco_projector.chunks import Chunk, chunks, key_of
from abaco_projector.clean import clean
from abaco_projector.entries import COLUMNS, Entry, entries
from abaco_projector.memory import Memory, merged
from abaco_projector.rows import Changes, fold
from abaco_projector.session import SLOW_SECONDS, Session, open_session
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.fold import States
from abaco_proto.keys import Keys, keys_of
from abaco_proto.log import RecordedOutput

logger = logging.getLogger(__name__)

EVENTS, OUTPUT = "events", "output"
"""The names of the two checkpoints."""

Item = TypeVar("Item", Recorded, RecordedOutput)


class Store:
    """The tables of one schema. After ``Unavailable`` it is of no use any more."""

    def __init__(self, session: Session, *, live: bool = True) -> None:
        """Work through an open session; see :func:`open_store`. Only the live tables are heard."""
        self.session = session
        self._live = live
        self._memory = Memory()
        self._generation = -1
        self._tip = (0, START)

    # -- projections -----------------------------------------------------------------------------

    async def checkpoint(self, name: str) -> int:
        """The last sequence that is in the rows; 0 at the beginning."""
        async with self.session.transaction():
            await self.session.execute("create_checkpoint", name)
            done = int(await self.session.value("read_checkpoint", name))
            if name == EVENTS:  # rows that no checkpoint vouches for are in nobody's way
                await self.session.execute("remove_beyond", done)
        return done

    async def apply_events(
        self, batch: Sequence[Recorded], *, after: int, plain: bool = False
    ) -> None:
        """Copy events, and fold them into the rows; those that are there already change nothing.

        ``after`` is the checkpoint the caller started from, or the last sequence it gave before.
        ``plain`` keeps bodies as bytes: see :func:`abaco_projector.entries.entries`.
        """
        async with self.session.transaction():
            fresh = await self._fresh(EVENTS, batch, after)
            if not fresh:
                return
            copied = await self._copy(fresh, plain=plain)
            loaded, changes = await self._fold(fresh)
            await self._write(changes)
            await self._go_to(EVENTS, copied[-1].seq, skipped=len(changes.unrecognized))
        self._memory.take(loaded, changes)
        self._tip = (copied[-1].seq, copied[-1].hash)
        for recorded in changes.unrecognized:
            logger.warning("event %d of %s is not understood", recorded.sequence, recorded.subject)

    async def apply_output(self, batch: Sequence[RecordedOutput], *, after: int) -> None:
        """Store output; what is stored already changes nothing. ``after`` as above."""
        async with self.session.transaction():
            fresh = await self._fresh(OUTPUT, batch, after)
            if fresh:
                await self._write_output(fresh)
                await self._go_to(OUTPUT, fresh[-1].sequence)

    async def skip_event(self, recorded: Recorded) -> None:
        """Leave one event out of the rows for good, and count it. It is copied all the same."""
        async with self.session.transaction():
            fresh = await self._fresh(EVENTS, [recorded], 0)
            copied = await self._copy(fresh, plain=True) if fresh else []
            await self._go_to(EVENTS, recorded.sequence, skipped=len(copied))
        for row in copied:
            self._tip = (row.seq, row.hash)

    async def skip_output(self, recorded: RecordedOutput) -> None:
        """Leave out one chunk for good, and count it."""
        async with self.session.transaction():
            await self._go_to(OUTPUT, recorded.sequence, skipped=1)

    async def _fresh(self, name: str, batch: Sequence[Item], after: int) -> Sequence[Item]:
        """What of a batch is not in the rows. Holds the checkpoint until the transaction ends."""
        found = await self.session.rows("lock_checkpoint", name)
        done, generation = found[0] if found else (0, 0)
        if done < after:
            raise Unavailable(f"the checkpoint {name} went back from {after} to {done}")
        if (self._generation, self._tip[0]) != (generation, done):
            self._memory.forget()  # someone else has written, or other tables stand here now
            self._generation = generation
        return [item for item in batch if item.sequence > done]

    async def _go_to(self, name: str, sequence: int, *, skipped: int = 0) -> None:
        await self.session.execute("advance_checkpoint", name, sequence, skipped)
        if name == EVENTS and self._live:
            await self.session.execute("notify", str(sequence))

    async def _copy(self, batch: Sequence[Recorded], *, plain: bool) -> list[Entry]:
        rows = entries(await self._previous(batch[0].sequence), batch, plain=plain)
        await self.session.copy("events", COLUMNS, rows)
        return rows

    async def _previous(self, sequence: int) -> bytes:
        """The hash before this sequence. A row that is missing is found by who verifies."""
        if self._tip[0] != sequence - 1:
            found = await self.session.rows("read_tip", sequence)
            self._tip = (found[0]["seq"], found[0]["hash"]) if found else (0, START)
        return self._tip[1]

    async def _fold(self, batch: Sequence[Recorded]) -> tuple[States, Changes]:
        events = [clean(recorded) for recorded in batch]
        keys = keys_of(events)
        loaded = merged(self._memory.known(keys), await self.load(self._memory.missing(keys)))
        return loaded, fold(loaded, events)

    async def load(self, keys: Keys) -> States:
        """The states in the rows."""
        actors = executions = workers = "[]"
        if keys.actors:
            actors = await self.session.value("load_actors", *_columns(keys.actors, 2))
        if keys.executions:
            executions = await self.session.value("load_executions", *_columns(keys.executions, 3))
        if keys.workers or keys.runs:
            columns = (*_columns(keys.workers, 2), *_columns(keys.runs, 3))
            workers = await self.session.value("load_workers", *columns)
        return records.decode_states(actors, executions, workers)

    async def _write(self, changes: Changes) -> None:
        states, execute = changes.states, self.session.execute
        if states.actors:
            await execute("write_actors", records.actor_rows(states.actors))
        if states.totals:
            await execute("write_totals", records.totals_rows(states.totals))
        if states.executions:
            await execute("write_executions", records.execution_rows(states.executions))
        if states.workers:
            await execute("write_workers", records.worker_rows(states.workers))
        if changes.subscriptions:
            rows = records.subscription_rows(changes.subscriptions)
            await execute("write_subscriptions", rows)
        for s in changes.sweeps:
            what = (s.status.value, s.status_message, s.finished_at, s.spared)
            await execute("sweep", *s.key, s.up_to_ordinal, *what, seconds=SLOW_SECONDS)

    async def _write_output(self, batch: Sequence[RecordedOutput]) -> None:
        outputs = [recorded.output for recorded in batch]
        keys = _columns({key_of(output) for output in outputs}, 3)
        found = await self.session.rows("load_output_ends", *keys)
        ends = {(t, execution_id, attempt): end for t, execution_id, attempt, end in found}
        await self._put(chunks(ends, outputs))

    async def put_chunks(self, kept: Sequence[Chunk]) -> None:
        """Store output as it was stored before; what is there already is left as it is."""
        async with self.session.transaction():
            await self._put(kept)

    async def _put(self, kept: Sequence[Chunk]) -> None:
        if kept:
            rows = _columns(map(msgspec.structs.astuple, kept), 5)
            await self.session.execute("write_chunks", *rows)

    # -- schema ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def migrating(self) -> AsyncGenerator[set[int], None]:
        """Be the only one to change the schema; gives the numbers of what was applied before."""
        async with self.session.border():
            await self.session.execute("lock_migrations", seconds=SLOW_SECONDS)
            await self.session.execute("create_migrations")
            applied = {int(row[0]) for row in await self.session.rows("read_migrations")}
        yield applied
        async with self.session.border():
            await self.session.execute("unlock_migrations")

    async def migrate(self, number: int, name: str, sql: str) -> None:
        """Apply one migration and remember that."""
        logger.info("database schema %04d: %s", number, name)
        async with self.session.transaction():
            await self.session.run(sql)
            await self.session.execute("record_migration", number, name)


@asynccontextmanager
async def open_store(dsn: str, *, schema: str | None = None) -> AsyncGenerator[Store, None]:
    """A store on a session of its own; raises as :func:`abaco_projector.session.open_session`."""
    async with open_session(dsn, schema=schema) as session:
        yield Store(session, live=schema is None)


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as columns, for ``unnest``."""
    table = list(rows)
    return [[row[at] for row in table] for at in range(width)]
