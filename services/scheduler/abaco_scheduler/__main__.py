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
from abaco_proto.jetstream import Connection, JetStreamEventLog, NatsHeartbeats
from abaco_scheduler.config import Config
from abaco_scheduler.loop import Scheduler
from abaco_scheduler.policy import Policy

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def main() -> None:
    """Read the settings, and run until told to stop."""
    try:
        config = settings.read(Config, os.environ)
    except Malformed as error:
        sys.stderr.write(f"abaco-scheduler: {error}\n")
        sys.exit(2)
    logging.basicConfig(level=config.log_level.upper(), format=LOG_FORMAT)
    uvloop.run(run(config))


async def run(config: Config) -> None:
    """Startup, main loop, shutdown."""
    connection = Connection(config.nats_url, name="abaco-scheduler", replicas=config.nats_replicas)
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await connection.open()
        await scheduler(connection, config).run()
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("stopping")
    finally:
        await connection.close()


def scheduler(connection: Connection, config: Config) -> Scheduler:
    """The scheduler on its real adapters."""
    values = {name: getattr(config, name) for name in Policy.__struct_fields__}
    return Scheduler(
        JetStreamEventLog(connection),
        NatsHeartbeats(connection),
        connection,
        msgspec.convert(values, Policy),
        config.tenant,
    )


if __name__ == "__main__":
    main()
