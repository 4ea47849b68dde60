"""Two generations compared, table by table, row by row, column by column: by Postgres.

Where the copy of the log differs from the log, the hash chain says which of them was changed: if
the hash of the copied row still follows from its content and the row before, it was the log.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

import msgspec

from abaco_projector.adapters.postgres_session import Session, quoted
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.domain import history_difference as d
from abaco_projector.domain.hash_chain import START

KEYS: dict[str, tuple[str, ...]] = {
    "events": ("seq",),
    "actors": ("tenant", "actor_id"),
    "subscriptions": ("tenant", "actor_id", "subscription_id"),
    "workers": ("tenant", "worker_id"),
    "executions": ("tenant", "actor_id", "ordinal"),
}
"""The tables of a generation, in the order in which they are compared, and their keys."""

MODELS = tuple(name for name in KEYS if name != "events")
"""Those that are folded; the other one is copied."""


class Table(msgspec.Struct, frozen=True):
    """How the rows of a table in two schemas are put side by side: ``l`` is live, ``f`` fresh."""

    name: str
    live: str
    fresh: str
    columns: Sequence[str]
    values: Sequence[str]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of its key."""
        return KEYS[self.name]

    def joined(self, what: str) -> str:
        """A query over the pairs that differ."""
        mine = ", ".join(f"l.{value}" for value in self.values)
        theirs = ", ".join(f"f.{value}" for value in self.values)
        return (
            f"SELECT {what} FROM {self.live} l FULL JOIN {self.fresh} f"  # noqa: S608 - quoted
            f" USING ({', '.join(self.key)}) WHERE ({mine}) IS DISTINCT FROM ({theirs})"
        )


class Compared(msgspec.Struct, frozen=True):
    """A table's rows that differ: how many, and the first of them."""

    table: str
    count: int
    first: d.Difference


async def comparison(
    session: Session, live: str, fresh: str, tables: Iterable[str] = KEYS
) -> AsyncGenerator[Compared, None]:
    """What differs, for each table where something does."""
    for name in tables:
        table = await _table(session, name, live, fresh)
        count = int((await session.found(table.joined("count(*)")))[0][0])
        if count:
            yield Compared(name, count, await _first(session, table))


async def first_difference(
    session: Session, live: str, fresh: str, tables: Iterable[str] = KEYS
) -> d.Difference | None:
    """The first difference there is."""
    async for compared in comparison(session, live, fresh, tables):
        return compared.first
    return None


async def _table(session: Session, name: str, live: str, fresh: str) -> Table:
    found = await session.found(QUERIES["columns_of"], live, name)
    return Table(
        name=name,
        live=f"{quoted(live)}.{name}",
        fresh=f"{quoted(fresh)}.{name}",
        columns=[column for column, _ in found],
        # The type json knows no equality; its text is what it keeps.
        values=[f"{column}::text" if kind == "json" else column for column, kind in found],
    )


async def _first(session: Session, table: Table) -> d.Difference:
    key = ", ".join(table.key)
    query = table.joined(f"{key}, l.{table.key[0]} IS NULL AS missing, f.{table.key[0]} IS NULL")
    *values, missing, unfounded = (await session.found(f"{query} ORDER BY {key} LIMIT 1"))[0]
    words = str(values[0]) if len(values) == 1 else f"({', '.join(map(str, values))})"
    if missing:
        return d.row_missing(table.name, words)
    if unfounded:
        return d.row_unfounded(table.name, words)
    mine = await _row(session, table, table.live, values)
    theirs = await _row(session, table, table.fresh, values)
    where = f"table {table.name}: row {words}"
    if table.name == "events":
        return await _of_event(session, table, values[0], mine, theirs)
    return _changed(where, mine, theirs)


async def _row(session: Session, table: Table, name: str, key: Sequence[Any]) -> dict[str, Any]:
    columns = ", ".join(f"{column}::text" for column in table.columns)
    condition = " AND ".join(f"{column} = ${n}" for n, column in enumerate(table.key, 1))
    found = await session.found(f"SELECT {columns} FROM {name} WHERE {condition}", *key)  # noqa: S608
    return dict(found[0])


def _changed(where: str, mine: dict[str, Any], theirs: dict[str, Any]) -> d.Difference:
    column = next(name for name in mine if mine[name] != theirs[name])
    return d.changed(where, column, theirs[column], mine[column])


async def _of_event(
    session: Session, table: Table, seq: int, mine: dict[str, Any], theirs: dict[str, Any]
) -> d.Difference:
    """Who is right is in the chain; what happened may be that the event belongs elsewhere."""
    chained = QUERIES["chained"].format(events=table.live)
    intact = bool((await session.found(chained, seq, START))[0][0])
    where, rows = (
        ("the log: event", "the log: events")
        if intact
        else (
            "table events: row",
            "table events: rows",
        )
    )
    here, there = (table.fresh, table.live) if intact else (table.live, table.fresh)
    same = QUERIES["same_event"].format(here=here, there=there)
    origin = [int(row[0]) for row in await session.found(same, seq)]
    if origin:
        back = [int(row[0]) for row in await session.found(same, origin[0])]
        return d.swapped(rows, seq, origin[0]) if seq in back else d.moved(where, seq, origin[0])
    if intact:
        return _changed(f"{where} {seq}", theirs, mine)
    return _changed(f"{where} {seq}", mine, theirs)
