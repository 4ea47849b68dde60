"""The read models in Postgres: states out, states in, and the checkpoint in the same transaction.

A store works on the tables of one schema: the live ones, or a generation in the making.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from abaco_projector.adapters.postgres_session import SLOW_SECONDS, Session, open_session
from abaco_projector.domain import row_codec as records
from abaco_projector.domain.batch_fold import fold
from abaco_projector.domain.event_rows import COLUMNS, Entry, entries
from abaco_projector.domain.hash_chain import START
from abaco_projector.domain.output_chunks import Chunk, chunks, key_of
from abaco_projector.domain.sanitise import clean
from abaco_projector.domain.state_cache import Loaded, Memory, merged
from abaco_projector.domain.write_buffer import Deferral
from abaco_proto.envelope import Recorded, not_understood
from abaco_proto.errors import AbacoError, Conflict, Unavailable
from abaco_proto.fold import States
from abaco_proto.keys import Keys, keys_of
from abaco_proto.output import RecordedOutput
from abaco_telemetry.about import about_event

logger = logging.getLogger(__name__)

EVENTS, OUTPUT = "events", "output"
"""The names of the two checkpoints."""

Settle = Callable[[], Awaitable[None]]


class Tip(msgspec.Struct, frozen=True):
    """Up to where the rows are, the hash there, and of which generation they are."""

    sequence: int
    hash: bytes
    generation: int


class Prepared(msgspec.Struct, frozen=True):
    """A batch up to ``sequence`` that is ready to be written behind ``tip``."""

    tip: Tip
    sequence: int
    rows: list[Entry]
    born: list[list[Any]]
    statements: list[records.Statement]
    unrecognized: list[Recorded]


class Store:
    """The tables of one schema. After ``Unavailable`` it is of no use any more.

    A batch of events is prepared (copied, folded, encoded) and then written; the next may be
    prepared meanwhile, out of what the store remembers. What is remembered holds if the writing
    succeeds, so after a failure all of it is forgotten.
    """

    def __init__(self, session: Session, *, live: bool = True, copying: bool = True) -> None:
        """Work through an open session; see :func:`open_store`. Only the live tables are heard.

        Without ``copying`` there is no copy of the events, only what comes of them.
        """
        self.session = session
        self._live = live
        self._copying = copying
        self._memory = Memory()
        self._tip: Tip | None = None
        self._deferral: Deferral | None = None

    # -- projections -----------------------------------------------------------------------------

    async def checkpoint(self, name: str) -> int:
        """The last sequence that is in the rows; 0 at the beginning. Begin with this."""
        self.forget()
        async with self.session.transaction():
            await self.session.execute("create_checkpoint", name)
            done = int(await self.session.value("lock_checkpoint", name))
            if name == EVENTS:  # rows that no checkpoint vouches for are in nobody's way
                await self.session.execute("remove_beyond", done)
        return done

    async def apply_events(
        self, batch: Sequence[Recorded], *, after: int, plain: bool = False
    ) -> None:
        """Copy events, and fold them into the rows; those that are there already change nothing.

        ``after`` is the checkpoint the caller started from, or the last sequence it gave before.
        """
        while True:
            prepared = await self.prepare(batch, after=after, plain=plain)
            try:
                return await self.write(prepared)
            except Conflict:
                continue  # someone else has written, or other tables stand here now

    async def prepare(
        self,
        batch: Sequence[Recorded],
        *,
        after: int,
        settle: Settle | None = None,
        plain: bool = False,
    ) -> Prepared:
        """Make a batch ready to be written behind what was prepared before it.

        What is in the rows already is left out. ``settle`` ends the writing that is under way: it
        is called before anything is loaded. ``plain`` keeps bodies as bytes: see
        :func:`abaco_projector.domain.event_rows.entries`.
        """
        if self._tip is None and settle is not None:
            await settle()
        if self._tip is None:
            self._tip = await self._find_tip()
        tip = self._tip
        if tip.sequence < after:
            raise _went_back(EVENTS, after, tip.sequence)
        fresh = [recorded for recorded in batch if recorded.sequence > tip.sequence]
        events = [clean(recorded) for recorded in fresh]
        keys = keys_of(events)
        missing, loaded = self._memory.missing(keys), Loaded(self._memory.known(keys), {})
        if any(getattr(missing, name) for name in Keys.__struct_fields__):
            if settle is not None:
                await settle()
            if self._tip is not tip:  # what was under way came to nothing
                return await self.prepare(batch, after=after, plain=plain)
            await self._flush()
            found = await self._load(missing)
            loaded = Loaded(merged(loaded.states, found.states), found.last)
        changes = fold(loaded.states, events)
        rows = entries(tip.hash, fresh, plain=plain) if self._copying else []
        self._memory.take(loaded, changes)
        if self._deferral is not None:
            changes = self._deferral.put_off(changes)
        if fresh:
            own_hash = rows[-1].hash if rows else START
            self._tip = Tip(fresh[-1].sequence, own_hash, tip.generation)
        return Prepared(
            tip,
            self._tip.sequence,
            rows,
            records.born_rows(changes),
            records.statements(changes),
            changes.unrecognized,
        )

    async def write(self, prepared: Prepared) -> None:
        """Write a batch.

        Raises:
            Conflict: the checkpoint is not where it was when the batch was prepared.
            Undecodable: Postgres refuses something in it.
        """
        if prepared.sequence == prepared.tip.sequence:
            return
        try:
            async with self.session.transaction():
                await self._hold(prepared.tip)
                await self._copy("events", COLUMNS, prepared.rows)
                await self._put_states(prepared.born, prepared.statements)
                skipped = len(prepared.unrecognized)
                await self._go_to(EVENTS, prepared.sequence, skipped=skipped)
        except AbacoError:
            self.forget()
            raise
        for recorded in prepared.unrecognized:
            with about_event(recorded):
                logger.warning("%s", not_understood(recorded))

    async def skip_event(self, recorded: Recorded) -> None:
        """Leave one event out of the rows for good, and count it. It is copied all the same."""
        self.forget()
        tip = await self._find_tip()
        async with self.session.transaction():
            await self._hold(tip)
            if self._copying:
                rows = entries(tip.hash, [recorded], plain=True)
                await self.session.copy("events", COLUMNS, rows)
            await self._go_to(EVENTS, recorded.sequence, skipped=1)

    @asynccontextmanager
    async def deferring(self) -> AsyncGenerator[None, None]:
        """Put off what can be: for tables that nobody reads, and that are dropped on a failure."""
        self._deferral = Deferral()
        yield
        await self._flush()
        self._deferral = None

    @property
    def defers(self) -> bool:
        """Whether rows may be behind the checkpoint, so that no failure can be told its event."""
        return self._deferral is not None

    async def _flush(self) -> None:
        if self._deferral is None:
            return
        changes = self._deferral.due()
        async with self.session.transaction():
            await self._put_states(records.born_rows(changes), records.statements(changes))

    async def _put_states(self, born: list[list[Any]], statements: list[records.Statement]) -> None:
        await self._copy("executions", records.EXECUTION_COLUMNS, born)
        for query, parameters in statements:
            await self.session.execute(query, *parameters, seconds=SLOW_SECONDS)

    async def _copy(self, table: str, columns: Sequence[str], rows: list[Any]) -> None:
        if rows:
            await self.session.copy(table, columns, rows)

    def forget(self) -> None:
        """Remember nothing: the rows are not, or no longer, what was prepared."""
        self._memory, self._tip = Memory(), None

    async def _find_tip(self) -> Tip:
        """Where the rows are. A copied event that is missing is found by who verifies."""
        async with self.session.border():
            sequence, generation = (await self.session.rows("read_tip", EVENTS))[0]
            found = await self.session.value("read_hash", sequence)
        return Tip(sequence, found or START, generation)

    async def _hold(self, tip: Tip) -> None:
        """Hold the checkpoint until the transaction ends."""
        found = (await self.session.rows("lock_checkpoint", EVENTS))[0]
        if tuple(found) != (tip.sequence, tip.generation):
            raise Conflict(f"the checkpoint {EVENTS} is {found[0]}, not {tip.sequence}")

    async def apply_output(self, batch: Sequence[RecordedOutput], *, after: int) -> None:
        """Store output; what is stored already changes nothing. ``after`` as above."""
        async with self.session.transaction():
            done = int((await self.session.rows("lock_checkpoint", OUTPUT))[0][0])
            if done < after:
                raise _went_back(OUTPUT, after, done)
            fresh = [recorded for recorded in batch if recorded.sequence > done]
            if fresh:
                await self._write_output(fresh)
                await self._go_to(OUTPUT, fresh[-1].sequence)

    async def skip_output(self, recorded: RecordedOutput) -> None:
        """Leave out one chunk for good, and count it."""
        async with self.session.transaction():
            await self._go_to(OUTPUT, recorded.sequence, skipped=1)

    async def _go_to(self, name: str, sequence: int, *, skipped: int = 0) -> None:
        await self.session.execute("advance_checkpoint", name, sequence, skipped)
        if name == EVENTS and self._live:
            await self.session.execute("notify", str(sequence))

    async def load(self, keys: Keys) -> States:
        """The states in the rows."""
        return (await self._load(keys)).states

    async def _load(self, keys: Keys) -> Loaded:
        actors = executions = workers = "[]"
        last: Sequence[Any] = []
        async with self.session.border():
            if keys.actors:
                columns = _columns(keys.actors, 2)
                actors = await self.session.value("load_actors", *columns)
                last = await self.session.rows("load_last_ordinals", *columns)
            if keys.executions:
                columns = _columns(keys.executions, 3)
                executions = await self.session.value("load_executions", *columns)
            if keys.workers or keys.runs:
                columns = [*_columns(keys.workers, 2), *_columns(keys.runs, 3)]
                workers = await self.session.value("load_workers", *columns)
        states = records.decode_states(actors, executions, workers)
        return Loaded(states, {(tenant, actor_id): most for tenant, actor_id, most in last})

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
async def open_store(
    dsn: str, *, schema: str | None = None, copying: bool = True
) -> AsyncGenerator[Store, None]:
    """A store on a session of its own; raises as :func:`.postgres_session.open_session`."""
    async with open_session(dsn, schema=schema) as session:
        yield Store(session, live=schema is None, copying=copying)


def _went_back(name: str, after: int, done: int) -> Unavailable:
    return Unavailable(f"the checkpoint {name} went back from {after} to {done}")


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as columns, for ``unnest``."""
    table = list(rows)
    return [[row[at] for row in table] for at in range(width)]
