"""The worker process: ``python -m abaco_worker``."""

import asyncio
import logging
import os
import signal
import socket
import sys

from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_proto.jetstream import (
    Connection,
    JetStreamEventLog,
    JetStreamOutputLog,
    JetStreamWorkQueue,
    NatsHeartbeats,
)
from abaco_worker import config as configuration
from abaco_worker.config import Config
from abaco_worker.docker_engine import DockerEngine
from abaco_worker.host import Host
from abaco_worker.images import Images
from abaco_worker.loop import Service
from abaco_worker.sweeper import Sweeper

logger = logging.getLogger("abaco_worker")

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def main() -> None:
    """Run the worker service until it is told to end."""
    try:
        config = settings.read(Config, os.environ)
    except Malformed as error:
        sys.stderr.write(f"abaco-worker: {error}\n")
        sys.exit(2)
    logging.basicConfig(level=config.log_level.upper(), format=LOG_FORMAT)
    code = asyncio.run(serve(config))
    logging.shutdown()
    # Threads may still wait for an engine that takes its time; nothing of theirs needs an end.
    os._exit(code)


async def serve(config: Config) -> int:
    """Work until SIGTERM or SIGINT; the exit code."""
    working = asyncio.ensure_future(work(config))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    await asyncio.wait({working})
    if working.cancelled():
        logger.info("stopped; containers go on")
        return 0
    logger.error("ended by an error", exc_info=working.exception())
    return 1


async def work(config: Config) -> None:
    """Connect, work, and let go of everything at the end."""
    host_id = configuration.host_id(config, socket.gethostname())
    capacity = configuration.capacity(config, os.cpu_count() or 1)
    connection = Connection(config.nats_url, name=f"abaco-worker {host_id}")
    engine = DockerEngine(os.environ, capacity=capacity)
    try:
        await connection.open()
        host = Host(
            host_id=host_id,
            capacity=capacity,
            config=config,
            log=JetStreamEventLog(connection),
            outputs=JetStreamOutputLog(connection),
            engine=engine,
            images=Images(engine, config.pull_policy),
            sweeper=Sweeper(engine),
        )
        queue = JetStreamWorkQueue(connection, host_id)
        await Service(host, queue, NatsHeartbeats(connection)).run()
    finally:
        engine.close()
        await connection.close()


if __name__ == "__main__":
    main()
