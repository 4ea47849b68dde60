"""Compares the tables of two schemas in Postgres: by table, row and column.

If the verified copy differs from the log, the hash chain shows which of them changed: if the hash
of the copied row still follows from its content and the previous row, the log changed.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

import msgspec

from abaco_projector.adapters.postgres_session import Session, quote_name
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.domain import history_difference as differences
from abaco_projector.domain.hash_chain import GENESIS_HASH

TABLE_KEYS: dict[str, tuple[str, ...]] = {
    "events": ("seq",),
    "actors": ("tenant", "actor_id"),
    "subscriptions": ("tenant", "actor_id", "subscription_id"),
    "workers": ("tenant", "worker_id"),
    "executions": ("tenant", "actor_id", "ordinal"),
}
"""The tables of a shadow schema in the order of comparison, and their keys."""

READ_MODELS = tuple(name for name in TABLE_KEYS if name != "events")
"""The folded tables; ``events`` is a copy."""


class ComparedTable(msgspec.Struct, frozen=True):
    """A table in two schemas: ``l`` is the live one, ``f`` the fresh one."""

    name: str
    live: str
    fresh: str
    columns: Sequence[str]
    values: Sequence[str]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of its primary key."""
        return TABLE_KEYS[self.name]

    def differing_rows(self, what: str) -> str:
        """Return a query that selects ``what`` from the pairs of rows that differ."""
        live_row = ", ".join(f"l.{value}" for value in self.values)
        fresh_row = ", ".join(f"f.{value}" for value in self.values)
        return (
            f"SELECT {what} FROM {self.live} l FULL JOIN {self.fresh} f"  # noqa: S608 - quoted
            f" USING ({', '.join(self.key)}) WHERE ({live_row}) IS DISTINCT FROM ({fresh_row})"
        )


class TableDifference(msgspec.Struct, frozen=True):
    """The number of rows of a table that differ, and the first of them."""

    table: str
    count: int
    first: differences.Difference


async def compare_tables(
    session: Session, live: str, fresh: str, tables: Iterable[str] = TABLE_KEYS
) -> AsyncGenerator[TableDifference, None]:
    """Yield a difference for each table that differs."""
    for name in tables:
        table = await _describe_table(session, name, live, fresh)
        count = int((await session.fetch_sql(table.differing_rows("count(*)")))[0][0])
        if count:
            yield TableDifference(name, count, await _first_of_table(session, table))


async def find_first_difference(
    session: Session, live: str, fresh: str, tables: Iterable[str] = TABLE_KEYS
) -> differences.Difference | None:
    """Return the first difference, or None."""
    async for compared in compare_tables(session, live, fresh, tables):
        return compared.first
    return None


async def _describe_table(session: Session, name: str, live: str, fresh: str) -> ComparedTable:
    found = await session.fetch_sql(QUERIES["columns_of"], live, name)
    return ComparedTable(
        name=name,
        live=f"{quote_name(live)}.{name}",
        fresh=f"{quote_name(fresh)}.{name}",
        columns=[column for column, _ in found],
        # The type json has no equality operator; its text is exact.
        values=[f"{column}::text" if kind == "json" else column for column, kind in found],
    )


async def _first_of_table(session: Session, table: ComparedTable) -> differences.Difference:
    key = ", ".join(table.key)
    query = table.differing_rows(
        f"{key}, l.{table.key[0]} IS NULL AS missing, f.{table.key[0]} IS NULL"
    )
    *values, missing, unknown = (await session.fetch_sql(f"{query} ORDER BY {key} LIMIT 1"))[0]
    row = str(values[0]) if len(values) == 1 else f"({', '.join(map(str, values))})"
    if missing:
        return differences.row_missing(table.name, row)
    if unknown:
        return differences.row_unknown(table.name, row)
    live_row = await _fetch_row(session, table, table.live, values)
    fresh_row = await _fetch_row(session, table, table.fresh, values)
    where = f"table {table.name}: row {row}"
    if table.name == "events":
        return await _event_difference(session, table, values[0], live_row, fresh_row)
    return _changed_column(where, live_row, fresh_row)


async def _fetch_row(
    session: Session, table: ComparedTable, name: str, key: Sequence[Any]
) -> dict[str, Any]:
    columns = ", ".join(f"{column}::text" for column in table.columns)
    condition = " AND ".join(f"{column} = ${n}" for n, column in enumerate(table.key, 1))
    found = await session.fetch_sql(f"SELECT {columns} FROM {name} WHERE {condition}", *key)  # noqa: S608
    return dict(found[0])


def _changed_column(
    where: str, live_row: dict[str, Any], fresh_row: dict[str, Any]
) -> differences.Difference:
    column = next(name for name in live_row if live_row[name] != fresh_row[name])
    return differences.changed(where, column, fresh_row[column], live_row[column])


async def _event_difference(
    session: Session,
    table: ComparedTable,
    seq: int,
    live_row: dict[str, Any],
    fresh_row: dict[str, Any],
) -> differences.Difference:
    """Use the chain to decide which side changed, and check whether the event was moved."""
    chained = QUERIES["chained"].format(events=table.live)
    intact = bool((await session.fetch_sql(chained, seq, GENESIS_HASH))[0][0])
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
    origin = [int(row[0]) for row in await session.fetch_sql(same, seq)]
    if origin:
        back = [int(row[0]) for row in await session.fetch_sql(same, origin[0])]
        return (
            differences.swapped(rows, seq, origin[0])
            if seq in back
            else differences.moved(where, seq, origin[0])
        )
    if intact:
        return _changed_column(f"{where} {seq}", fresh_row, live_row)
    return _changed_column(f"{where} {seq}", live_row, fresh_row)
