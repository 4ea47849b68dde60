"""Verify: log, copy and read models hold the same, or the first difference is named.

The log is folded into a scratch generation, chain included. One transaction then sees the live
tables as they were at one checkpoint, folds the log up to exactly there, and compares.
"""

import msgspec

from abaco_projector import difference as d
from abaco_projector.comparison import KEYS, first_difference
from abaco_projector.generations import Show, alone, built, drop, fill, live_schema
from abaco_projector.queries import QUERIES
from abaco_projector.session import Session, quoted
from abaco_projector.span import History, head_of
from abaco_projector.store import EVENTS, Store
from abaco_proto.errors import Refused

SCRATCH = "abaco_verify"


class Head(msgspec.Struct, frozen=True):
    """A verified history: up to which event, its hash, and how many more the log has."""

    sequence: int
    hash: str
    behind: int


async def verify(log: History, dsn: str, show: Show, noted: tuple[int, str] | None = None) -> Head:
    """Compare all there is. ``noted`` is a sequence and its hash that were noted down earlier.

    Raises:
        Difference: the first one.
        Refused: there are no read models.
    """
    async with alone(dsn, SCRATCH) as session:
        live = await live_schema(session)
        until = await checkpoint(session, live)
        try:
            until = min(until, await head_of(log))
            async with built(session, dsn, SCRATCH, log, until, show, logged=False) as store:
                return await _compared(store, log, live, show, noted)
        finally:
            await drop(session, SCRATCH)


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
    store: Store, log: History, live: str, show: Show, noted: tuple[int, str] | None
) -> Head:
    session = store.session
    async with session.transaction("ISOLATION LEVEL REPEATABLE READ"):
        for table in KEYS:  # a rebuild's switch must wait
            await session.run(f"LOCK TABLE {quoted(live)}.{table} IN ACCESS SHARE MODE")
        until = int((await session.found(_checkpoint(live), EVENTS))[0][0])
        await fill(store, log, until, show, "catching up")
        end = (await session.found(f"SELECT max(seq) FROM {quoted(live)}.events"))[0][0] or 0  # noqa: S608
        found = await _hashes(session, SCRATCH, until, noted)
        with show("comparing", len(KEYS)) as advance:
            if end < until:
                raise d.copy_ended_early(end, until)
            difference = await first_difference(session, live, SCRATCH)
            advance(len(KEYS))
    if difference is not None:
        raise difference
    if noted is not None and found.get(noted[0]) != noted[1]:
        raise d.noted(*noted, found.get(noted[0]))
    return Head(until, found.get(until, ""), await head_of(log) - until)


async def _hashes(
    session: Session, schema: str, until: int, noted: tuple[int, str] | None
) -> dict[int, str]:
    wanted = [until, *(noted[:1] if noted else ())]
    query = QUERIES["hashes"].format(schema=quoted(schema))
    return {int(seq): value for seq, value in await session.found(query, wanted)}
