"""The connections to Postgres. Each answer has a deadline, and asyncpg's errors become ours."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TypeAlias

import asyncpg

from abaco_proto.errors import Unavailable

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

MAX_CONNECTIONS = 10

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncio.TimeoutError)
DATA_EXCEPTION = "22"
"""The SQLSTATE class of values that Postgres refuses."""


class PostgresPool:
    """At most ``MAX_CONNECTIONS`` connections, opened when one is needed."""

    def __init__(
        self,
        dsn: str,
        timeout: float,
        instrumented: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """An answer may take ``timeout`` seconds; ``instrumented`` is entered for every answer."""
        self._dsn = dsn
        self._timeout = timeout
        self._instrumented = instrumented
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    def close(self) -> None:
        """Drop all connections."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def session(self, timeout: float | None = None) -> AsyncGenerator[Connection, None]:  # noqa: ASYNC109
        """A connection for one answer.

        Raises:
            Unavailable: Postgres does not answer in time, ``timeout`` seconds if it is given.
        """
        with self._instrumented():
            async with self._translated(timeout or self._timeout) as connection:
                yield connection

    @asynccontextmanager
    async def _translated(self, seconds: float) -> AsyncGenerator[Connection, None]:
        try:
            async with asyncio.timeout(seconds):
                pool = await self._opened()
                connection = await pool.acquire()
                try:
                    yield connection
                except asyncio.CancelledError:
                    # A server that does not answer would not confirm the end of the session either.
                    connection.terminate()
                    raise
                finally:
                    await pool.release(connection)
        except ERRORS as error:
            if _is_about_an_argument(error):
                raise
            text = str(error) or type(error).__name__
            raise Unavailable(f"the read models (Postgres) do not answer: {text}") from error

    async def _opened(self) -> "asyncpg.Pool[asyncpg.Record]":
        """The pool. It connects when a connection is needed, and again after an outage."""
        if self._pool is None:
            self._pool = asyncpg.create_pool(self._dsn, min_size=0, max_size=MAX_CONNECTIONS)
        await self._pool
        return self._pool


def _is_about_an_argument(error: Exception) -> bool:
    """Whether Postgres or the driver refused one of our values: a bug of ours, not an outage.

    The driver's own ``DataError`` has no public name.
    """
    if isinstance(error, asyncpg.ClientConfigurationError):
        return False
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(DATA_EXCEPTION)
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
