"""The shell: startup, main loop, shutdown.

Two projections run side by side, events and output, each on a connection of its own. Whatever
interrupts one, it goes on as after a start: open, bring the schema up to date, ask for the
checkpoint, follow from there. So there is one way to begin, and it is always in use.
"""

import asyncio
import logging
from contextlib import suppress

from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_projector.adapters.read_model_store import open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.app import projection as of
from abaco_projector.app.instrumented_projection import watched
from abaco_projector.app.output_expiry import keep_expiring
from abaco_projector.app.pipeline import project_events
from abaco_projector.app.projection import Item, Project, Projection, project
from abaco_projector.app.projector_metrics import Metrics
from abaco_projector.projector_settings import Config
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.output import RecordedOutput
from abaco_telemetry.endpoint import Endpoint
from abaco_telemetry.event_log import WatchedEventLog
from abaco_telemetry.spans import OFF, Spans

logger = logging.getLogger(__name__)

SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 3.0
SHUTDOWN_SECONDS = 0.7


class Outage:
    """The time without a database: one word at its beginning, one at its end, and pauses."""

    def __init__(self) -> None:
        self._pause = 0.0

    async def wait(self, error: Unavailable) -> None:
        """Wait a while, each time longer."""
        if self._pause == 0.0:
            logger.warning("waiting: %s", error)
        self._pause = min(max(2 * self._pause, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(self._pause)

    def over(self) -> None:
        """It works again."""
        if self._pause > 0.0:
            logger.info("going on")
        self._pause = 0.0


async def run(config: Config, stop: asyncio.Event, spans: Spans = OFF) -> None:
    """Project until ``stop`` is set.

    Raises:
        Malformed: a setting cannot be used.
        Refused: the database belongs to a later version.
    """
    connection = Connection(config.nats_url, name="abaco-projector", replicas=config.nats_replicas)
    metrics = Metrics()
    metrics.log.watch(connection)
    log = WatchedEventLog(JetStreamEventLog(connection), metrics.log)
    both = (
        watched(of.events(log), metrics, spans),
        watched(of.output(JetStreamOutputLog(connection)), metrics, spans),
    )
    endpoint = Endpoint(metrics.catalogue, lambda: metrics.measure_lag(log))
    async with endpoint.listening(config.metrics_host, config.metrics_port):
        work = asyncio.ensure_future(main_loop(config, connection, *both))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await shutdown(connection, work)


async def startup(config: Config, connection: Connection) -> None:
    """The schema first: queries need it even while there is no log."""
    outage = Outage()
    while True:
        try:
            async with open_store(config.postgres_dsn) as store:
                await migrate(store)
        except Unavailable as error:
            await outage.wait(error)
        else:
            break
    outage.over()
    await connection.open()


async def main_loop(
    config: Config,
    connection: Connection,
    events: Projection[Recorded],
    output: Projection[RecordedOutput],
) -> None:
    """Both projections, and the end of old output, without end."""
    await startup(config, connection)
    outage = Outage()
    works = [
        asyncio.ensure_future(keep_projecting(events, project_events, config, outage)),
        asyncio.ensure_future(keep_projecting(output, project, config, outage)),
        asyncio.ensure_future(keep_expiring(config)),
    ]
    try:
        await asyncio.gather(*works)
    finally:
        for one in works:
            one.cancel()


async def shutdown(connection: Connection, work: asyncio.Future[None]) -> None:
    """Break off: what is not committed is folded again at the next start."""
    work.cancel()
    await asyncio.wait({work}, timeout=SHUTDOWN_SECONDS)
    if connection.client.is_connected or connection.client.is_reconnecting:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connection.close(), SHUTDOWN_SECONDS)
    if work.done() and not work.cancelled():
        work.result()


async def keep_projecting(
    projection: Projection[Item], project: Project[Item], config: Config, outage: Outage
) -> None:
    """Project for good, through all outages of the database."""
    while True:
        try:
            async with open_store(config.postgres_dsn) as store:
                await migrate(store)
                after = await store.checkpoint(projection.name)
                outage.over()
                logger.info("projecting %s after %d", projection.name, after)
                await project(projection, store, config.batch_events, after)
        except Unavailable as error:
            await outage.wait(error)
