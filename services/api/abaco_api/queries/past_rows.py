"""Rows and copied events about one moment of the past, found by indexes in Postgres."""

from collections.abc import Sequence
from importlib.resources import files

import msgspec

from abaco_api.domain.views import Row
from abaco_api.queries.postgres_pool import PostgresPool
from abaco_api.queries.sql_statements import statements
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, decode
from abaco_proto.fold import Totals

SQL = statements(files("abaco_api.queries").joinpath("past.sql").read_text())

MAX_UNDETERMINED = 10_000
"""Executions of one actor whose own events are read for its totals; an actor with more of them is
folded."""


class TotalsAt(msgspec.Struct, frozen=True):
    """The totals of an actor, and how many of its executions waited.

    ``undetermined`` are the ordinals of the executions that are in neither, because their rows do
    not determine what they were: at most ``MAX_UNDETERMINED`` + 1 of them.
    """

    totals: Totals
    waiting: int
    undetermined: list[int]


class PastRows:
    """What Postgres holds of one tenant, asked about a sequence that is projected.

    Every method raises ``Unavailable`` when Postgres does not answer within ``seconds``.
    """

    def __init__(self, pool: PostgresPool, tenant: str, seconds: float) -> None:
        """Answers may take longer than those of the read models: some count rows."""
        self._pool = pool
        self._tenant = tenant
        self._seconds = seconds

    async def is_longer(self, actor_id: str, until: int, count: int) -> bool:
        """Whether the actor has more than ``count`` events up to a sequence."""
        [row] = await self._rows("is_longer", actor_id, until, count)
        return bool(row["longer"])

    async def before(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int, before: int, limit: int
    ) -> list[Recorded]:
        """The latest events of some types between two sequences, the latest first."""
        types = [ev.type_of(kind) for kind in kinds]
        return await self._events("events_before", actor_id, types, after, before, limit)

    async def after(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int, before: int, limit: int
    ) -> list[Recorded]:
        """The earliest events of some types between two sequences."""
        types = [ev.type_of(kind) for kind in kinds]
        return await self._events("events_after", actor_id, types, after, before, limit)

    async def named(self, ids: Sequence[str], before: int) -> list[Recorded]:
        """The events of some executions or workers, by their ids."""
        return await self._events("events_named", list(ids), before)

    async def assignments(
        self, worker_ids: Sequence[str], before: int, limit: int
    ) -> list[Recorded]:
        """The latest ``limit`` assignments to each of some workers."""
        return await self._events("assignments", list(worker_ids), before, limit)

    async def live_workers(self, actor_id: str, sequence: int) -> list[str]:
        """The ids of an actor's workers that were live."""
        return [row["worker_id"] for row in await self._rows("live_workers", actor_id, sequence)]

    async def totals(self, actor_id: str, sequence: int) -> TotalsAt:
        """The totals of an actor. The cost grows with its executions, by less than 1 µs each."""
        [row] = await self._rows("totals_at", actor_id, sequence, MAX_UNDETERMINED + 1)
        totals = Totals(**{name: row[name] for name in Totals.__struct_fields__})
        return TotalsAt(totals, row["waiting"], list(row["undetermined"]))

    async def execution_ids(
        self, actor_id: str, sequence: int, offset: int, end: int, limit: int
    ) -> list[str]:
        """The ids of executions with ordinals from ``offset``, and below ``end``."""
        rows = await self._rows("execution_ids_at", actor_id, sequence, offset, end, limit)
        return [row["execution_id"] for row in rows]

    async def actors(
        self,
        sequence: int,
        limit: int,
        offset: int,
        after_row: Row | None,
        only: Sequence[str] | None,
    ) -> list[str]:
        """The ids of the actors that there were, in the order of their registration."""
        place = (
            (None, None)
            if after_row is None
            else (after_row["registered_at"], after_row["actor_id"])
        )
        rows = await self._rows("actors_at", sequence, *place, limit, offset, only)
        return [row["actor_id"] for row in rows]

    async def backlog(self, actor_id: str, ordinal: int) -> Row:
        """``ahead``: the messages that wait before one; ``running``: what a worker has, if any."""
        [row] = await self._rows("backlog", actor_id, ordinal)
        return row

    async def host_events(self) -> list[Recorded]:
        """The last event of each host. Hosts serve all tenants."""
        async with self._pool.session(self._seconds) as session:
            return [_recorded(row) for row in await session.fetch(SQL["host_events"])]

    async def live_workers_by_host(self) -> dict[str, int]:
        """How many workers of all actors of all tenants each host has."""
        async with self._pool.session(self._seconds) as session:
            rows = await session.fetch(SQL["live_workers_by_host"])
        return {row["host_id"]: row["workers"] for row in rows}

    async def reruns(self, actor_id: str, execution_id: str, limit: int) -> Sequence[Row]:
        """The first runs with the inputs of an execution, and where their messages are."""
        return await self._rows("reruns", actor_id, execution_id, limit)

    async def _events(self, name: str, *arguments: object) -> list[Recorded]:
        return [_recorded(row) for row in await self._rows(name, *arguments)]

    async def _rows(self, name: str, *arguments: object) -> Sequence[Row]:
        async with self._pool.session(self._seconds) as session:
            return await session.fetch(SQL[name], self._tenant, *arguments)


def _recorded(row: Row) -> Recorded:
    raw = bytes(row["body"] or b"") if row["data"] is None else row["data"].encode()
    return Recorded(
        sequence=row["seq"],
        subject=row["subject"],
        tenant=row["tenant"],
        event=decode(raw),
        id=row["id"],
        time=row["time"],
        causation_id=row["causation_id"],
        correlation_id=row["correlation_id"],
        hops=row["hops"],
        principal=row["principal"],
    )
