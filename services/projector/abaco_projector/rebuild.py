"""Rebuild: a new generation of the tables takes the place of the live one, without an outage."""

import asyncio

import msgspec

from abaco_projector.comparison import KEYS, Compared, comparison
from abaco_projector.difference import ended_early
from abaco_projector.generations import (
    Show,
    alone,
    built,
    drop,
    fill,
    index,
    live_schema,
)
from abaco_projector.migrate import migrate
from abaco_projector.queries import QUERIES
from abaco_projector.session import Session, quoted
from abaco_projector.span import History, head_of
from abaco_projector.store import EVENTS, Store, open_store
from abaco_projector.verify import checkpoint
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
        until = await _target(session, live, log, force=force)
        try:
            async with built(session, dsn, NEXT, log, until, show) as store:
                with show("indexing", 1) as advance:
                    await index(session, live, NEXT)
                    advance(1)
                differences = await _compared(store, log, live, show, force=force)
                sequence = await _switched(store, log, live, show, force=force)
        finally:
            await drop(session, NEXT)
            await drop(session, OLD)
        return Rebuilt(sequence, differences)


async def _target(session: Session, live: str, log: History, *, force: bool) -> int:
    """How far the live tables are; with ``force``, no further than the log."""
    until, head = await checkpoint(session, live), await head_of(log)
    if head < until and not force:
        raise ended_early(head, until)
    return min(until, head)


async def _compared(
    store: Store, log: History, live: str, show: Show, *, force: bool
) -> list[Compared]:
    async with store.session.transaction("ISOLATION LEVEL REPEATABLE READ"):
        until = await _target(store.session, live, log, force=force)
        await fill(store, log, until, show, "catching up")
        with show("comparing", len(KEYS)) as advance:
            found = [one async for one in comparison(store.session, live, NEXT)]
            advance(len(KEYS))
    for one in found:
        if one.table == "events" and not force:
            raise one.first
    return found


async def _switched(store: Store, log: History, live: str, show: Show, *, force: bool) -> int:
    """Try until nobody else holds the tables for long."""
    while True:
        try:
            await _near(store, log, live, show, force=force)
            return await _switch(store, log, live, show, force=force)
        except Conflict:
            await asyncio.sleep(PAUSE_SECONDS)


async def _near(store: Store, log: History, live: str, show: Show, *, force: bool) -> None:
    """Catch up while nobody waits for us."""
    until = await _target(store.session, live, log, force=force)
    while until - await store.checkpoint(EVENTS) > NEAR_EVENTS:
        await fill(store, log, until, show, "catching up")
        until = await _target(store.session, live, log, force=force)


async def _switch(store: Store, log: History, live: str, show: Show, *, force: bool) -> int:
    session = store.session
    names = {"live": quoted(live), "next": quoted(NEXT), "old": quoted(OLD)}
    async with session.transaction():
        await session.run(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await session.found(QUERIES["hold_checkpoint"].format(**names), EVENTS)
        until = await _target(session, live, log, force=force)
        await fill(store, log, until, show, "catching up")
        await session.run(QUERIES["make_old"].format(**names))
        for table in KEYS:
            await session.run(QUERIES["switch_table"].format(table=table, **names))
        await session.found(QUERIES["switch_checkpoint"].format(**names), EVENTS, until)
    return until
