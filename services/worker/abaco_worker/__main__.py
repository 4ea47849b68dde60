"""The worker process: ``python -m abaco_worker``."""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop
from msgspec.structs import replace

from abaco_jetstream import (
    Connection,
    JetStreamEventLog,
    JetStreamOutputLog,
    JetStreamWorkQueue,
    NatsHeartbeats,
)
from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_telemetry import log_format, spans
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog
from abaco_telemetry.metrics_endpoint import MetricsEndpoint
from abaco_telemetry.spans import Spans
from abaco_worker import worker_settings as configuration
from abaco_worker.app import confinement
from abaco_worker.app.host import Host
from abaco_worker.app.waiting import cancelled
from abaco_worker.app.worker_loop import Service
from abaco_worker.app.worker_metrics import Metrics
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.docker_engine import DockerEngine
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import Images
from abaco_worker.engine.instrumented_engine import WatchedEngine
from abaco_worker.launcher import build
from abaco_worker.network.bridge_network import Network, refusal
from abaco_worker.network.netlink import Linux
from abaco_worker.runs.disk_limit import Disks
from abaco_worker.runs.run_spec_reader import Orders
from abaco_worker.sandbox import helper_client as helpers
from abaco_worker.sandbox.container_garbage_collector import Sweeper
from abaco_worker.sandbox.helper_client import Helper
from abaco_worker.sandbox.sandbox_store import Sandboxes
from abaco_worker.worker_settings import Config

MOST_OPEN_FILES = Path("/proc/sys/fs/nr_open")

logger = logging.getLogger("abaco_worker")


def main() -> None:
    """Run the worker service until it is told to end."""
    try:
        config = settings.read(Config, os.environ)
    except Malformed as error:
        sys.stderr.write(f"abaco-worker: {error}\n")
        sys.exit(2)
    log_format.configure_logging("worker", level=config.log_level, log_format=config.log_format)
    kernel = int(MOST_OPEN_FILES.read_text())
    config = replace(config, container_open_files=configuration.open_files(config, kernel))
    telling = spans.create_spans("abaco-worker", os.environ)
    code = uvloop.run(serve(config, telling))
    telling.close()
    logging.shutdown()
    # Threads may still wait for an engine that takes its time; nothing of theirs needs an end.
    os._exit(code)


async def serve(config: Config, telling: Spans) -> int:
    """Work until SIGTERM or SIGINT; the exit code, 2 for what a person must change."""
    working = asyncio.ensure_future(work(config, telling))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    await asyncio.wait({working})
    if working.cancelled():
        logger.info("stopped; containers go on")
        return 0
    if isinstance(error := working.exception(), Malformed):
        sys.stderr.write(f"abaco-worker: {error}\n")
        return 2
    logger.error("ended by an error", exc_info=error)
    return 1


async def work(config: Config, telling: Spans) -> None:
    """Connect, work, and let go of everything at the end.

    Raises:
        Malformed: a setting cannot be used, a port in use among them.
    """
    host_id = configuration.host_id(config, socket.gethostname())
    capacity = configuration.capacity(config, os.cpu_count() or 1)
    connection = Connection(
        config.nats_url, name=f"abaco-worker {host_id}", replicas=config.nats_replicas
    )
    metrics = Metrics()
    metrics.log.watch(connection)
    docker = DockerEngine(os.environ, capacity=capacity)
    engine = WatchedEngine(docker, metrics.call)
    telling_once: asyncio.Task[None] | None = None
    try:
        log = InstrumentedEventLog(JetStreamEventLog(connection), metrics.log)
        images, sweeper = Images(engine, config.pull_policy), Sweeper(engine)
        host = Host(
            host_id=host_id,
            capacity=capacity,
            config=config,
            log=log,
            outputs=JetStreamOutputLog(connection),
            engine=engine,
            images=images,
            sweeper=sweeper,
            orders=Orders(log),
            disks=Disks(engine),
            sandboxes=await sandboxes(config, host_id, docker, engine, images, sweeper, metrics),
            metrics=metrics,
            spans=telling,
        )
        queue = JetStreamWorkQueue(connection, host_id)
        service = Service(host, queue, NatsHeartbeats(connection))
        endpoint = MetricsEndpoint(metrics.registry, service.count)
        telling_once = asyncio.create_task(confinement.tell(engine, metrics))
        async with endpoint.listening(config.metrics_host, config.metrics_port):
            await connection.open()
            await service.run()
    finally:
        await cancelled(telling_once)
        docker.close()
        await connection.close()


async def sandboxes(  # noqa: PLR0913, PLR0917 - the ports of a host
    config: Config,
    host_id: str,
    docker: DockerEngine,
    engine: Engine,
    images: Images,
    sweeper: Sweeper,
    metrics: Metrics,
) -> Sandboxes | None:
    """Where there is a launcher, and what starts it may; else runs start cold."""
    found = Path(config.launcher) if config.launcher not in ("", "off") else build.find()
    reason = "ABACO_LAUNCHER is off" if config.launcher == "off" else ""
    if not reason and (found is None or not found.is_file()):
        reason = "there is no launcher: the set-up builds it where there is a C compiler"
    if not reason and not engine.location.startswith("unix://"):
        reason = f"the container engine at {engine.location} may be on another machine"
    helper: Helper | None = None
    if not reason and found is not None:
        try:
            folder = Path(config.worker_dir)
            helper = await helpers.find(
                found, folder, engine.location, lambda: docker.helper(host_id, found, folder)
            )
        except EngineFault as error:
            reason = str(error)
    if reason or found is None or helper is None:
        logger.warning("every run starts cold: %s", reason)
        return None
    kernel = Linux()
    return Sandboxes(
        engine,
        images,
        sweeper,
        Network(engine, kernel, refusal=refusal(config, kernel)),
        helper,
        folder=Path(config.worker_dir),
        program=found,
        starts_at_once=config.starts_at_once,
        watched=metrics.making,
    )


if __name__ == "__main__":
    main()
