"""The scheduler process: ``python -m abaco_scheduler``."""

import asyncio
import logging
import os
import signal
import sys

import msgspec
import uvloop

from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_proto.jetstream import (
    Connection,
    JetStreamEventLog,
    JetStreamSnapshots,
    NatsHeartbeats,
)
from abaco_scheduler import provenance
from abaco_scheduler.config import Config
from abaco_scheduler.keeper import Keeper
from abaco_scheduler.loop import Scheduler
from abaco_scheduler.metrics import Metrics
from abaco_scheduler.policy import Policy
from abaco_telemetry import lines, spans
from abaco_telemetry.endpoint import Endpoint
from abaco_telemetry.event_log import WatchedEventLog
from abaco_telemetry.spans import Spans


def main() -> None:
    """Read the settings, and run until told to stop."""
    try:
        config = settings.read(Config, os.environ)
    except Malformed as error:
        sys.stderr.write(f"abaco-scheduler: {error}\n")
        sys.exit(2)
    lines.log("scheduler", level=config.log_level, form=config.log_format)
    telling = spans.spans("abaco-scheduler", os.environ)
    try:
        uvloop.run(run(config, telling))
    except Malformed as error:
        sys.stderr.write(f"abaco-scheduler: {error}\n")
        sys.exit(2)
    finally:
        telling.close()


async def run(config: Config, telling: Spans) -> None:
    """Startup, main loop, shutdown.

    Raises:
        Malformed: a setting cannot be used, a port in use among them.
    """
    connection = Connection(config.nats_url, name="abaco-scheduler", replicas=config.nats_replicas)
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    metrics = Metrics()
    scheduling = scheduler(connection, config, metrics, telling)
    endpoint = Endpoint(metrics.catalogue, scheduling.count)
    try:
        async with endpoint.listening(config.metrics_host, config.metrics_port):
            await connection.open()
            await scheduling.run()
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("stopping")
    finally:
        await connection.close()


def scheduler(
    connection: Connection, config: Config, metrics: Metrics, telling: Spans
) -> Scheduler:
    """The scheduler on its real adapters."""
    metrics.log.watch(connection)
    values = {name: getattr(config, name) for name in Policy.__struct_fields__}
    log = WatchedEventLog(JetStreamEventLog(connection), metrics.log)
    return Scheduler(
        log,
        NatsHeartbeats(connection),
        connection,
        msgspec.convert(values, Policy),
        config.tenant,
        keeper=Keeper(JetStreamSnapshots(connection), log, provenance.digest()),
        metrics=metrics,
        spans=telling,
    )


if __name__ == "__main__":
    main()
