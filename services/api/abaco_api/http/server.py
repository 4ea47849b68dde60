"""The running server: startup, main loop, shutdown.

It serves from its start, whether or not NATS and Postgres are available. Requests that need one of
them get 503 until it is.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

import uvicorn

from abaco_api.access.access_control import check_exposure
from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import Tenants, assemble
from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.http.application import check_operations, create_app
from abaco_api.http.wire_protocol import protocol
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_proto.errors import Malformed
from abaco_telemetry.context import NO_SPANS, Spans
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog
from abaco_telemetry.shutdown import on_signal

logger = logging.getLogger(__name__)

BACKLOG = 2048
GRACE_SECONDS = 1
CLOSE_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 65


class Server(uvicorn.Server):
    """uvicorn's server. A signal stops it, and does not end the process."""

    def __init__(self, config: uvicorn.Config, at_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._at_stop = at_stop

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT while inside."""
        on_signal(self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True
        self._at_stop()


async def run(settings: ApiSettings, spans: Spans = NO_SPANS) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Malformed: a setting cannot be used, for example an address that is in use.
    """
    check_operations()
    check_exposure(settings)
    listener = listen(settings)
    connection = Connection(
        settings.nats_url,
        name="abaco-api",
        timeout=settings.append_timeout_seconds,
        replicas=settings.nats_replicas,
    )
    metrics = ApiMetrics()
    metrics.log.watch(connection)
    tenants = assemble(
        settings,
        InstrumentedEventLog(JetStreamEventLog(connection), metrics.log),
        JetStreamOutputLog(connection),
        metrics=metrics,
        spans=spans,
    )
    try:
        await main_loop(tenants, connection, listener)
    finally:
        await shutdown(tenants, connection)


def listen(settings: ApiSettings) -> socket.socket:
    """The socket that clients connect to."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    address = (settings.api_host, settings.api_port)
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        where = f"{settings.api_host}:{settings.api_port}"
        raise Malformed(f"ABACO_API_PORT: cannot listen on {where}: {error.strerror}") from None


async def main_loop(tenants: Tenants, connection: Connection, listener: socket.socket) -> None:
    """Serve, connect and fold concurrently, until one of these ends."""
    server = _server(tenants)
    opening = asyncio.ensure_future(connection.open())
    work = {
        asyncio.ensure_future(server.serve(sockets=[listener])),
        *(asyncio.ensure_future(_when_open(opening, run)) for run in tenants.loops),
    }
    done, rest = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    for task in (*rest, opening):
        task.cancel()
    await asyncio.wait(rest, timeout=CLOSE_SECONDS) if rest else None
    for task in done:
        task.result()


async def shutdown(tenants: Tenants, connection: Connection) -> None:
    """Close all connections, without waiting for a server that does not answer."""
    tenants.pool.close()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(connection.close(), CLOSE_SECONDS)


async def _when_open(opening: "asyncio.Future[None]", run: Callable[[], Awaitable[None]]) -> None:
    await opening
    await run()


def _server(tenants: Tenants) -> Server:
    return Server(
        uvicorn.Config(
            create_app(tenants),
            http=protocol(tenants.settings.head_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        ),
        at_stop=tenants.close,
    )
