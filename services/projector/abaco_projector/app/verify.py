"""Verify: log, copy, read models and output hold the same, or the first difference is named.

The log is folded into a scratch generation, and the copy checked against it meanwhile. One
transaction then sees the live tables as they were at one checkpoint, folds the log up to exactly
there, and compares; output is compared with the digests in the ends of its runs. Where the copy
differs, all is done again with a copy of its own, so that Postgres can tell what differs.
"""

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from abaco_projector.adapters.postgres_session import Session, quoted
from abaco_projector.adapters.read_model_store import EVENTS, Store
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.copy_audit import CopyDiffers, check_ends
from abaco_projector.app.log_range import History, head_of
from abaco_projector.app.output_audit import OutputTally, check_output
from abaco_projector.app.shadow_schema import Show, Source, alone, built, drop, fill, live_schema
from abaco_projector.app.table_comparison import KEYS, MODELS, first_difference
from abaco_projector.domain import history_difference as d
from abaco_proto.errors import Refused

SCRATCH = "abaco_verify"

Noted = tuple[int, str]
"""A sequence, and its hash."""

Tell = Callable[[OutputTally], object]
"""Takes what was found out about stored output."""


def tell_nobody(tally: OutputTally) -> None:
    """Where only a difference matters."""


class Head(msgspec.Struct, frozen=True):
    """A verified history: up to which event, its hash, and how many more the log has."""

    sequence: int
    hash: str
    behind: int


async def verify(
    log: History, dsn: str, show: Show, noted: Noted | None = None, tell: Tell = tell_nobody
) -> Head:
    """Compare all there is. ``noted`` is a sequence and its hash that were noted down earlier.

    ``tell`` is told how much of the output could be checked.

    Raises:
        Difference: the first one.
        Refused: there are no read models.
    """
    async with alone(dsn, SCRATCH) as session:
        live = await live_schema(session)
        until = min(await checkpoint(session, live), await head_of(log))
        try:
            source = Source(log, dsn, live, MODELS, logged=False)
            try:
                return await _verified(session, source, until, show, (noted, tell))
            except CopyDiffers:
                source = replace(source, tables=tuple(KEYS))
                return await _verified(session, source, until, show, (noted, tell))
        finally:
            await drop(session, SCRATCH)


async def _verified(
    session: Session, source: Source, until: int, show: Show, how: tuple[Noted | None, Tell]
) -> Head:
    async with built(session, SCRATCH, source, until, show) as store:
        return await _compared(store, source, show, how)


async def checkpoint(session: Session, live: str) -> int:
    """How far the live tables are.

    Raises:
        Refused: there are none, or they are of an older version.
    """
    if (await session.found("SELECT to_regclass($1)", f"{live}.events"))[0][0] is None:
        raise Refused("there are no read models yet: the projector makes them when it starts")
    found = await session.found(_checkpoint(live), EVENTS)
    return int(found[0][0]) if found else 0


def _checkpoint(live: str) -> str:
    return f"SELECT sequence FROM {quoted(live)}.projection_checkpoints WHERE name = $1"  # noqa: S608


async def _compared(
    store: Store, source: Source, show: Show, how: tuple[Noted | None, Tell]
) -> Head:
    noted, tell = how
    session, live, tables = store.session, source.live, source.tables
    async with session.transaction("ISOLATION LEVEL REPEATABLE READ"):
        for table in (*KEYS, "logs"):  # a rebuild's switch must wait
            await session.run(f"LOCK TABLE {quoted(live)}.{table} IN ACCESS SHARE MODE")
        until = int((await session.found(_checkpoint(live), EVENTS))[0][0])
        await fill(store, source, until, show, "catching up")
        end = (await session.found(f"SELECT max(seq) FROM {quoted(live)}.events"))[0][0] or 0  # noqa: S608
        if not source.copying:
            await check_ends(session, source.copy(until))
        found = await _hashes(session, SCRATCH if source.copying else live, until, noted)
        with show("comparing", len(tables)) as advance:
            if end < until:
                raise d.copy_ended_early(end, until)
            difference = await first_difference(session, live, SCRATCH, tables)
            advance(len(tables))
        if difference is None:
            with show("output", 1) as advance:
                tell(await check_output(session, live, SCRATCH))
                advance(1)
    if difference is not None:
        raise difference
    if noted is not None and found.get(noted[0]) != noted[1]:
        raise d.noted(*noted, found.get(noted[0]))
    return Head(until, found.get(until, ""), await head_of(source.log) - until)


async def _hashes(session: Session, schema: str, until: int, noted: Noted | None) -> dict[int, str]:
    wanted = [until, *(noted[:1] if noted else ())]
    query = QUERIES["hashes"].format(schema=quoted(schema))
    return {int(seq): value for seq, value in await session.found(query, wanted)}
