"""Queries: the read models in Postgres.

Rows have the columns of ``read_models.sql``.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from abaco_api.domain.views import Row
from abaco_api.domain.wildcard import ANY
from abaco_api.queries.postgres_pool import Connection, PostgresPool
from abaco_api.queries.sql_statements import statements
from abaco_api.streams.domain.selection import like
from abaco_api.streams.events.event_query import EventQuery
from abaco_proto.envelope import service_principal
from abaco_proto.errors import Unknown
from abaco_proto.events import Owner
from abaco_proto.worker import INITIAL, Worker, WorkerStatus

MOST_BYTES = 256 * 1024
"""How long the rows of one answer are together, where they may be long; a row may be longer."""

SERVICES = frozenset(map(service_principal, Owner))
"""Most events are of these, so no index finds them by principal."""

SQL = statements(files("abaco_api.queries").joinpath("read_models.sql").read_text())


class ReadModels:
    """What the projector has made of the log, for one tenant.

    Every method raises ``Unavailable`` when Postgres does not answer in time, and ``Unknown`` when
    what is named is not there.
    """

    def __init__(self, pool: PostgresPool, tenant: str) -> None:
        self._pool = pool
        self._tenant = tenant

    async def checkpoint(self) -> int:
        """The sequence of the last event that is in the rows."""
        async with self._pool.session() as session:
            return int(await session.fetchval(SQL["checkpoint"]) or 0)

    async def actor(self, actor_id: str) -> Row:
        """An actor, with its subscriptions."""
        async with self._pool.session() as session:
            return await self._of_actor(session, "actor", actor_id)

    async def actors(
        self,
        limit: int,
        offset: int,
        *,
        after_row: Row | None = None,
        most_bytes: int = MOST_BYTES,
        only: Sequence[str] | None = None,
    ) -> Sequence[Row]:
        """All actors, in the order of their registration: a piece of the list, as ``events``.

        With ``only``, those with these ids.
        """
        place = (
            (None, None)
            if after_row is None
            else (after_row["registered_at"], after_row["actor_id"])
        )
        arguments = (self._tenant, limit, offset, *place, most_bytes, only)
        async with self._pool.session() as session:
            return await session.fetch(SQL["actors"], *arguments)

    async def waiting(self, actor_id: str) -> int:
        """How many messages wait."""
        async with self._pool.session() as session:
            return int((await self._of_actor(session, "waiting", actor_id))["waiting"])

    async def executions(self, actor_id: str, limit: int, offset: int) -> Row:
        """An actor's totals, with the ``ids`` of a page of its executions."""
        async with self._pool.session() as session:
            return await self._of_actor(session, "executions", actor_id, limit, offset)

    async def execution(self, actor_id: str, ordinal: int) -> Row:
        """One execution."""
        async with self._pool.session() as session:
            row = await session.fetchrow(SQL["execution"], self._tenant, actor_id, ordinal)
            if row is None:
                await self._of_actor(session, "actor", actor_id)
                what = f"{actor_id}_exc_{ordinal}"
                raise Unknown(f"execution_id: {actor_id} has no execution {what!r}")
            return row

    async def stored_output(self, execution_id: str, attempt: int) -> int:
        """How many bytes of an attempt's output are stored."""
        arguments = (self._tenant, execution_id, attempt)
        async with self._pool.session() as session:
            return int(await session.fetchval(SQL["stored_output"], *arguments))

    async def output_from(
        self, execution_id: str, attempt: int, offset: int, limit: int
    ) -> Sequence[Row]:
        """At most ``limit`` chunks, from the one that holds the byte at ``offset`` on."""
        arguments = (self._tenant, execution_id, attempt, offset, limit)
        async with self._pool.session() as session:
            return await session.fetch(SQL["output"], *arguments)

    async def ended(self, keys: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], Row]:
        """Those of the executions, by actor id and ordinal, that have ended."""
        arguments = ([actor_id for actor_id, _ in keys], [ordinal for _, ordinal in keys])
        async with self._pool.session() as session:
            rows = await session.fetch(SQL["ended"], self._tenant, *arguments)
        return {(row["actor_id"], row["ordinal"]): row for row in rows}

    async def workers(self, actor_id: str) -> Sequence[Row]:
        """The live workers of an actor."""
        async with self._pool.session() as session:
            await self._of_actor(session, "actor", actor_id)
            return await session.fetch(SQL["workers"], self._tenant, actor_id)

    async def worker(self, actor_id: str, worker_id: str) -> Row:
        """A worker, gone or not."""
        async with self._pool.session() as session:
            await self._of_actor(session, "actor", actor_id)
            row = await session.fetchrow(SQL["worker"], self._tenant, actor_id, worker_id)
            if row is None:
                raise Unknown(f"worker_id: {actor_id} has no worker {worker_id!r}")
            return row

    async def worker_at(self, actor_id: str, worker_id: str) -> tuple[Worker, int]:
        """A worker as far as commands need it, and the sequence of the last event in the rows."""
        async with self._pool.session() as session:
            row = await session.fetchrow(SQL["worker_at"], self._tenant, actor_id, worker_id)
        if row is None or row["worker_id"] is None:
            return INITIAL, 0 if row is None else row["sequence"]
        worker = Worker(
            worker_id=worker_id,
            actor_id=actor_id,
            host_id=row["host_id"],
            status=WorkerStatus(row["status"]),
        )
        return worker, row["sequence"]

    async def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """An actor's subscriptions."""
        async with self._pool.session() as session:
            await self._of_actor(session, "actor", actor_id)
            return await session.fetch(SQL["subscriptions"], self._tenant, actor_id)

    # -- the verified copy of the log ------------------------------------------------------------

    async def events(  # noqa: PLR0913 - what is asked for, and what of it may be seen
        self,
        asked: EventQuery,
        limit: int,
        *,
        after_row: Row | None = None,
        most_bytes: int = MOST_BYTES,
        only: Sequence[str] | None = None,
        credentials: bool = True,
    ) -> Sequence[Row]:
        """At most ``limit`` events of those asked for, after one of them.

        With ``only``, those of these actors; without ``credentials``, none about API tokens and
        nonces.
        They end with the one that reaches ``most_bytes``; ``found`` is how many there were to give.
        """
        selection, principal = asked.selection, asked.selection.principal
        name, kind = "events", like(selection.type)
        by = None if principal is None else like(principal)
        rest: tuple[Any, ...] = (most_bytes, only, credentials, by)
        if selection.actor_id is not None:
            name, rest = "events_of_actor", (selection.actor_id, most_bytes, by)
        elif principal is not None and ANY not in principal and principal not in SERVICES:
            name, rest = "events_of_principal", (most_bytes, only, credentials, principal)
        elif ANY not in selection.type:
            name, kind = "events_of_type", selection.type
        after = (asked.after or 0) if after_row is None else after_row["seq"]
        bounds = (after, asked.before or 2**63 - 1)
        times = (selection.since, selection.until)
        arguments = (self._tenant, *bounds, kind, *times, limit, *rest)
        async with self._pool.session() as session:
            return await session.fetch(SQL[name], *arguments)

    async def event(self, sequence: int) -> Row:
        """One event, with its hash."""
        async with self._pool.session() as session:
            row = await session.fetchrow(SQL["event"], self._tenant, sequence)
        if row is None:
            raise Unknown(f"sequence: there is no event {sequence}")
        return row

    async def head(self) -> Row | None:
        """The last event of the copy, of whatever tenant."""
        async with self._pool.session() as session:
            return await session.fetchrow(SQL["head"])

    async def known(self, actor_id: str) -> None:
        """Check that there ever was such an actor."""
        async with self._pool.session() as session:
            if not await session.fetchval(SQL["known"], self._tenant, actor_id):
                raise Unknown(f"actor_id: there is no actor {actor_id!r}")

    async def last_event_at(self, time: datetime) -> int:
        """Of all events that are not later, the sequence of the last; 0 when there is none."""
        async with self._pool.session() as session:
            return int(await session.fetchval(SQL["last_event_at"], time))

    async def caused(self, event_ids: Sequence[str], after: int, limit: int) -> Sequence[Row]:
        """Messages that subscriptions made of these events."""
        arguments = (self._tenant, after, list(event_ids), limit)
        async with self._pool.session() as session:
            return await session.fetch(SQL["caused"], *arguments)

    async def latest_rerun(self, actor_id: str, execution_id: str) -> int | None:
        """The ordinal of the latest run with the inputs of an execution."""
        arguments = (self._tenant, actor_id, execution_id)
        async with self._pool.session() as session:
            found = await session.fetchval(SQL["latest_rerun"], *arguments)
        return None if found is None else int(found)

    async def _of_actor(
        self, session: Connection, name: str, actor_id: str, *arguments: object
    ) -> Row:
        row = await session.fetchrow(SQL[name], self._tenant, actor_id, *arguments)
        if row is None:
            raise Unknown(f"actor_id: there is no actor {actor_id!r}")
        return row
