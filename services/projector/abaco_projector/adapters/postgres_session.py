"""A Postgres session. This module translates the errors of ``asyncpg``, and no other imports it.

``Unavailable`` means: wait, open another session, and continue from the checkpoint.
``Undecodable`` means: Postgres refuses this data, and would refuse it again.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import asyncpg

from abaco_projector.adapters.sql_queries import QUERIES
from abaco_proto.errors import Conflict, Malformed, Unavailable, Undecodable

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 60.0
SLOW_STATEMENT_SECONDS = 3600.0
"""A purge may end a million executions, and a migration may rewrite as many rows."""

CURSOR_ROWS = 2000

SERVER_SETTINGS = {
    "application_name": "abaco-projector",
    "timezone": "UTC",
    "jit": "off",
    # A crash of the server may lose commits. They are folded again: the checkpoint is lost with
    # the rows.
    "synchronous_commit": "off",
}

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are about the data: data exception, constraint violation, program limit."""

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
    """One connection, with nested transactions. Unusable after ``Unavailable``.

    Methods with ``query`` take the name of a statement in ``queries.sql``; methods with ``sql``
    take SQL text.
    """

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Use an open connection; see :func:`open_session`."""
        self._connection = connection
        self._depth = 0

    async def execute(self, query: str, *parameters: Any, seconds: float | None = None) -> None:
        """Run a statement."""
        await self._connection.execute(QUERIES[query], *parameters, timeout=seconds)

    async def fetch_value(self, query: str, *parameters: Any) -> Any:
        """Return the first column of the first row."""
        return await self._connection.fetchval(QUERIES[query], *parameters)

    async def rows(self, query: str, *parameters: Any) -> "Sequence[asyncpg.Record]":
        """Return all rows."""
        return await self._connection.fetch(QUERIES[query], *parameters)

    async def run_sql(self, sql: str) -> None:
        """Run SQL statements, with the timeout of slow ones."""
        async with self.translated_errors():
            await self._connection.execute(sql, timeout=SLOW_STATEMENT_SECONDS)

    async def fetch_sql(self, sql: str, *parameters: Any) -> "Sequence[asyncpg.Record]":
        """Return all rows of an SQL query."""
        async with self.translated_errors():
            return await self._connection.fetch(sql, *parameters, timeout=SLOW_STATEMENT_SECONDS)

    async def scan(
        self, query: str, *parameters: Any
    ) -> "AsyncGenerator[Sequence[asyncpg.Record], None]":
        """Yield all rows, ``CURSOR_ROWS`` at a time. Requires a transaction."""
        async with aclosing(self.scan_sql(QUERIES[query], *parameters)) as batches:
            async for rows in batches:
                yield rows

    async def scan_sql(
        self, sql: str, *parameters: Any, rows: int = CURSOR_ROWS
    ) -> "AsyncGenerator[Sequence[asyncpg.Record], None]":
        """Yield all rows of an SQL query, ``rows`` at a time. Requires a transaction."""
        async with self.translated_errors():
            cursor = await self._connection.cursor(sql, *parameters, timeout=SLOW_STATEMENT_SECONDS)
            while found := await cursor.fetch(rows, timeout=SLOW_STATEMENT_SECONDS):
                yield found

    async def copy_out(self, sql: str) -> bytes:
        """Return the rows of an SQL query in the binary format of COPY."""
        parts: list[bytes] = []

        async def take(part: bytes) -> None:
            parts.append(part)

        async with self.translated_errors():
            await self._connection.copy_from_query(
                sql, output=take, format="binary", timeout=SLOW_STATEMENT_SECONDS
            )
        return b"".join(parts)

    async def copy_in(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Insert rows with COPY."""
        await self._connection.copy_records_to_table(table, columns=columns, records=rows)

    @asynccontextmanager
    async def transaction(self, kind: str = "") -> AsyncGenerator[None, None]:
        """Open a transaction, or a savepoint inside one; ``kind`` is an isolation level.

        It rolls back after refused data (``Undecodable``) or a refused lock (``Conflict``). After
        any other error it leaves the rollback to the end of the connection, because the server may
        hang.
        """
        begin, rollback, commit = f"BEGIN {kind}", "ROLLBACK", "COMMIT"
        if self._depth:
            point = f"point_{self._depth}"
            begin, commit = f"SAVEPOINT {point}", f"RELEASE SAVEPOINT {point}"
            rollback = f"ROLLBACK TO SAVEPOINT {point}; {commit}"
        async with self.translated_errors():
            await self._connection.execute(begin)
            self._depth += 1
            try:
                async with self.translated_errors():
                    yield
            except (Undecodable, Conflict):
                await self._connection.execute(rollback)
                raise
            finally:
                self._depth -= 1
            await self._connection.execute(commit)

    @asynccontextmanager
    async def translated_errors(self) -> AsyncGenerator[None, None]:
        """Translate errors of asyncpg inside the block to ours."""
        try:
            yield
        except ERRORS as error:
            raise _translated(error) from error


@asynccontextmanager
async def open_session(dsn: str, *, schema: str | None = None) -> AsyncGenerator[Session, None]:
    """Open a session on a new connection, which is cut at the end of the block.

    ``schema`` is the search path; by default that of the account.

    Raises:
        Unavailable: the database cannot be reached, or refuses the connection.
        Malformed: ``dsn`` is not a database address.
    """
    path = {} if schema is None else {"search_path": quote_name(schema)}
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings=SERVER_SETTINGS | path,
        )
    except ValueError as error:
        raise Malformed(f"ABACO_POSTGRES_DSN: {error}") from None
    except ERRORS as error:
        raise _translated(error) from error
    try:
        yield Session(connection)
    finally:
        connection.terminate()


def quote_name(name: str) -> str:
    """Return an identifier quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _translated(error: BaseException) -> Unavailable | Undecodable | Conflict:
    text = str(error) or type(error).__name__
    if isinstance(error, asyncpg.LockNotAvailableError):
        return Conflict(f"the database (Postgres): {text}")
    state = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, ValueError | OverflowError | RecursionError) or state.startswith(
        REFUSED_CLASSES
    ):
        return Undecodable(text)
    return Unavailable(f"the database (Postgres): {text}")
