"""The main loop: startup, projections, shutdown.

Two projections run at the same time, events and output, each on its own connection. After any
interruption a projection continues as after a start: open a session, migrate the schema, read the
checkpoint, follow the stream from there.
"""

import asyncio
import logging
from contextlib import suppress

from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_projector.adapters.read_model_store import open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.app.instrumented_projection import instrumented
from abaco_projector.app.output_expiry import expire_periodically
from abaco_projector.app.pipeline import project_events
from abaco_projector.app.projection import (
    Item,
    Projection,
    RunProjection,
    events_projection,
    output_projection,
    project,
)
from abaco_projector.app.projector_metrics import ProjectorMetrics
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.output import RecordedOutput
from abaco_telemetry.context import NO_SPANS, Spans
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog
from abaco_telemetry.metrics_endpoint import MetricsEndpoint

logger = logging.getLogger(__name__)

MIN_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 3.0
SHUTDOWN_SECONDS = 0.7


class PostgresOutage:
    """Logs the start and the end of an outage of Postgres once, and computes the pauses."""

    def __init__(self) -> None:
        self._pause = 0.0

    async def wait(self, error: Unavailable) -> None:
        """Pause before the next try, each time longer."""
        if self._pause == 0.0:
            logger.warning(
                "Postgres is unavailable (%s); the projector retries. Queries answer from what was"
                " projected before; see docs/how-to/outages.md",
                error,
            )
        self._pause = min(max(2 * self._pause, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
        await asyncio.sleep(self._pause)

    def recovered(self) -> None:
        """Log the end of an outage, if there was one."""
        if self._pause > 0.0:
            logger.info("Postgres is available again")
        self._pause = 0.0


async def run(config: ProjectorSettings, stop: asyncio.Event, spans: Spans = NO_SPANS) -> None:
    """Project until ``stop`` is set.

    Raises:
        Malformed: a setting cannot be used.
        Refused: a later version made the database.
    """
    connection = Connection(config.nats_url, name="abaco-projector", replicas=config.nats_replicas)
    metrics = ProjectorMetrics()
    metrics.log.watch(connection)
    log = InstrumentedEventLog(JetStreamEventLog(connection), metrics.log)
    projections = (
        instrumented(events_projection(log), metrics, spans),
        instrumented(output_projection(JetStreamOutputLog(connection)), metrics, spans),
    )
    endpoint = MetricsEndpoint(metrics.registry, lambda: metrics.measure_lag(log))
    async with endpoint.listening(config.metrics_host, config.metrics_port):
        work = asyncio.ensure_future(main_loop(config, connection, *projections))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await shutdown(connection, work)


async def startup(config: ProjectorSettings, connection: Connection) -> None:
    """Migrate the schema, which queries need even without a log, and connect to NATS."""
    outage = PostgresOutage()
    while True:
        try:
            async with open_store(config.postgres_dsn) as store:
                await migrate(store)
        except Unavailable as error:
            await outage.wait(error)
        else:
            break
    outage.recovered()
    await connection.open()


async def main_loop(
    config: ProjectorSettings,
    connection: Connection,
    events: Projection[Recorded],
    output: Projection[RecordedOutput],
) -> None:
    """Run both projections, and remove expired output, without end."""
    await startup(config, connection)
    outage = PostgresOutage()
    tasks = [
        asyncio.ensure_future(run_projection(events, project_events, config, outage)),
        asyncio.ensure_future(run_projection(output, project, config, outage)),
        asyncio.ensure_future(expire_periodically(config)),
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def shutdown(connection: Connection, work: asyncio.Future[None]) -> None:
    """Cancel the work and close the connection. Uncommitted batches are folded again at the next
    start.
    """
    work.cancel()
    await asyncio.wait({work}, timeout=SHUTDOWN_SECONDS)
    if connection.client.is_connected or connection.client.is_reconnecting:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connection.close(), SHUTDOWN_SECONDS)
    if work.done() and not work.cancelled():
        work.result()


async def run_projection(
    projection: Projection[Item],
    project: RunProjection[Item],
    config: ProjectorSettings,
    outage: PostgresOutage,
) -> None:
    """Run a projection without end, across outages of Postgres."""
    while True:
        try:
            async with open_store(config.postgres_dsn) as store:
                await migrate(store)
                after = await store.checkpoint(projection.name)
                outage.recovered()
                logger.info("projection %s resumes after sequence %d", projection.name, after)
                await project(projection, store, config.batch_events, after)
        except Unavailable as error:
            await outage.wait(error)
