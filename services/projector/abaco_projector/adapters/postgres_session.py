"""A session with Postgres: the border where errors change names. Only this module has ``asyncpg``.

What it raises says what to do: ``Unavailable`` (wait, open another session, go on from the
checkpoint), ``Undecodable`` (this very data is refused, and would be again).
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import asyncpg

from abaco_projector.adapters.sql_queries import QUERIES
from abaco_proto.errors import Conflict, Malformed, Unavailable, Undecodable

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 60.0
SLOW_SECONDS = 3600.0
"""A purge may end a million executions, and a new schema may rewrite as many rows."""

CURSOR_ROWS = 2000

SETTINGS = {
    "application_name": "abaco-projector",
    "timezone": "UTC",
    "jit": "off",
    # What a crash of the server takes with it is folded again: rows and checkpoint go together.
    "synchronous_commit": "off",
}

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are about the data: data exception, constraint, program limit."""

ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
    OverflowError,
    RecursionError,
)


class Session:
    """One connection, and transactions that nest. After ``Unavailable`` it is of no use any more.

    Statements are named: see ``queries.sql``.
    """

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Take over an open connection; see :func:`open_session`."""
        self._connection = connection
        self._depth = 0

    async def execute(self, query: str, *parameters: Any, seconds: float | None = None) -> None:
        """Run a statement."""
        await self._connection.execute(QUERIES[query], *parameters, timeout=seconds)

    async def value(self, query: str, *parameters: Any) -> Any:
        """The first column of the first row of an answer."""
        return await self._connection.fetchval(QUERIES[query], *parameters)

    async def rows(self, query: str, *parameters: Any) -> "Sequence[asyncpg.Record]":
        """All rows of an answer."""
        return await self._connection.fetch(QUERIES[query], *parameters)

    async def run(self, sql: str) -> None:
        """Run statements that were put together, however long they take."""
        async with self.border():
            await self._connection.execute(sql, timeout=SLOW_SECONDS)

    async def found(self, sql: str, *parameters: Any) -> "Sequence[asyncpg.Record]":
        """All rows of a query that was put together."""
        async with self.border():
            return await self._connection.fetch(sql, *parameters, timeout=SLOW_SECONDS)

    async def scan(
        self, query: str, *parameters: Any
    ) -> "AsyncGenerator[Sequence[asyncpg.Record], None]":
        """Rows in bunches, however many they are. Only within a transaction."""
        async with aclosing(self.scan_found(QUERIES[query], *parameters)) as bunches:
            async for bunch in bunches:
                yield bunch

    async def scan_found(
        self, sql: str, *parameters: Any, rows: int = CURSOR_ROWS
    ) -> "AsyncGenerator[Sequence[asyncpg.Record], None]":
        """The same of a query that was put together, ``rows`` at a time."""
        async with self.border():
            cursor = await self._connection.cursor(sql, *parameters, timeout=SLOW_SECONDS)
            while bunch := await cursor.fetch(rows, timeout=SLOW_SECONDS):
                yield bunch

    async def copied(self, sql: str) -> bytes:
        """The answer of a query that was put together, in the binary format of COPY."""
        parts: list[bytes] = []

        async def take(part: bytes) -> None:
            parts.append(part)

        async with self.border():
            await self._connection.copy_from_query(
                sql, output=take, format="binary", timeout=SLOW_SECONDS
            )
        return b"".join(parts)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Put rows into a table."""
        await self._connection.copy_records_to_table(table, columns=columns, records=rows)

    @asynccontextmanager
    async def transaction(self, kind: str = "") -> AsyncGenerator[None, None]:
        """All or nothing. ``kind`` is an isolation level, where the usual one will not do.

        Only refused data, or a lock that was not given, is rolled back here; any other way out of
        the block leaves that to the end of the connection, so that nothing waits for a server
        that hangs.
        """
        begin, rollback, commit = f"BEGIN {kind}", "ROLLBACK", "COMMIT"
        if self._depth:
            point = f"point_{self._depth}"
            begin, commit = f"SAVEPOINT {point}", f"RELEASE SAVEPOINT {point}"
            rollback = f"ROLLBACK TO SAVEPOINT {point}; {commit}"
        async with self.border():
            await self._connection.execute(begin)
            self._depth += 1
            try:
                async with self.border():
                    yield
            except (Undecodable, Conflict):
                await self._connection.execute(rollback)
                raise
            finally:
                self._depth -= 1
            await self._connection.execute(commit)

    @asynccontextmanager
    async def border(self) -> AsyncGenerator[None, None]:
        """Errors inside have our names."""
        try:
            yield
        except ERRORS as error:
            raise _translated(error) from error


@asynccontextmanager
async def open_session(dsn: str, *, schema: str | None = None) -> AsyncGenerator[Session, None]:
    """A session on a connection of its own, cut off at the end of the block.

    Names without a schema are those of ``schema``, or of the account's usual one.

    Raises:
        Unavailable: the database cannot be reached, or does not let us in.
        Malformed: ``dsn`` is no address of a database.
    """
    path = {} if schema is None else {"search_path": quoted(schema)}
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings=SETTINGS | path,
        )
    except ValueError as error:
        raise Malformed(f"ABACO_POSTGRES_DSN: {error}") from None
    except ERRORS as error:
        raise _translated(error) from error
    try:
        yield Session(connection)
    finally:
        connection.terminate()


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _translated(error: BaseException) -> Unavailable | Undecodable | Conflict:
    words = str(error) or type(error).__name__
    if isinstance(error, asyncpg.LockNotAvailableError):
        return Conflict(f"the database (Postgres): {words}")
    state = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, ValueError | OverflowError | RecursionError) or state.startswith(
        REFUSED_CLASSES
    ):
        return Undecodable(words)
    return Unavailable(f"the database (Postgres): {words}")
