"""The worker process: ``python -m abaco_worker``."""

import asyncio
import logging
import os
import platform
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
from abaco_telemetry import log_format
from abaco_telemetry.context import Spans, create_spans
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog
from abaco_telemetry.metrics_endpoint import MetricsEndpoint
from abaco_telemetry.shutdown import on_signal
from abaco_worker import worker_settings
from abaco_worker.app.confinement import report_confinement
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.waiting import cancel_and_wait
from abaco_worker.app.worker_loop import WorkerLoop
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.docker_engine import DockerEngine
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import ImageStore
from abaco_worker.engine.instrumented_engine import InstrumentedEngine
from abaco_worker.launcher import build
from abaco_worker.network.bridge_network import BridgeNetwork, engine_only_reason
from abaco_worker.network.netlink import LinuxKernel
from abaco_worker.runs.disk_limit import DiskMonitor
from abaco_worker.runs.run_spec_reader import RunSpecReader
from abaco_worker.sandbox.container_garbage_collector import ContainerGarbageCollector
from abaco_worker.sandbox.helper_client import Helper, find_helper
from abaco_worker.sandbox.sandbox_store import SandboxStore, sandbox_hindrance
from abaco_worker.worker_settings import WorkerSettings

KERNEL_MAX_OPEN_FILES = Path("/proc/sys/fs/nr_open")

logger = logging.getLogger("abaco_worker")


def main() -> None:
    """Read the settings and run until SIGTERM or SIGINT."""
    try:
        config = settings.read(WorkerSettings, os.environ)
    except Malformed as error:
        sys.stderr.write(f"abaco-worker: {error}\n")
        sys.exit(2)
    log_format.configure_logging("worker", level=config.log_level, log_format=config.log_format)
    kernel_max = int(KERNEL_MAX_OPEN_FILES.read_text())
    config = replace(config, container_open_files=worker_settings.open_files(config, kernel_max))
    tracing = create_spans("abaco-worker", os.environ)
    code = uvloop.run(run_until_signal(config, tracing))
    tracing.close()
    logging.shutdown()
    # Threads may still wait for a slow engine, and an exit would join them.
    os._exit(code)


async def run_until_signal(config: WorkerSettings, tracing: Spans) -> int:
    """Run until SIGTERM or SIGINT; return the exit code, which is 2 if a setting is wrong."""
    task = asyncio.ensure_future(run(config, tracing))
    on_signal(task.cancel)
    await asyncio.wait({task})
    if task.cancelled():
        logger.info("the worker shuts down: it received SIGTERM or SIGINT. Containers continue")
        return 0
    if isinstance(error := task.exception(), Malformed):
        sys.stderr.write(f"abaco-worker: {error}\n")
        return 2
    logger.error(
        "the worker shuts down after an error: %s. Containers continue; restart the worker, and"
        " report the error if it repeats",
        error,
        exc_info=error,
    )
    return 1


async def run(config: WorkerSettings, tracing: Spans) -> None:
    """Start, run the main loop, and close all connections at the end.

    Raises:
        Malformed: a setting cannot be used; a port that is in use, too.
    """
    host_id = worker_settings.host_id(config, socket.gethostname())
    capacity = worker_settings.capacity(config, os.cpu_count() or 1)
    connection = Connection(
        config.nats_url, name=f"abaco-worker {host_id}", replicas=config.nats_replicas
    )
    metrics = WorkerMetrics()
    metrics.log.watch(connection)
    docker = DockerEngine(os.environ, capacity=capacity)
    engine = InstrumentedEngine(docker, metrics.measure_call)
    confinement_report: asyncio.Task[None] | None = None
    try:
        log = InstrumentedEventLog(JetStreamEventLog(connection), metrics.log)
        images = ImageStore(engine, config.pull_policy)
        garbage_collector = ContainerGarbageCollector(engine)
        host = HostContext(
            host_id=host_id,
            capacity=capacity,
            config=config,
            log=log,
            outputs=JetStreamOutputLog(connection),
            engine=engine,
            images=images,
            garbage_collector=garbage_collector,
            run_specs=RunSpecReader(log),
            disks=DiskMonitor(engine),
            sandboxes=await build_sandbox_store(
                config, host_id, docker, engine, images, garbage_collector, metrics
            ),
            metrics=metrics,
            spans=tracing,
        )
        queue = JetStreamWorkQueue(connection, host_id)
        worker_loop = WorkerLoop(host, queue, NatsHeartbeats(connection))
        endpoint = MetricsEndpoint(metrics.registry, worker_loop.update_metrics)
        confinement_report = asyncio.create_task(report_confinement(engine, metrics))
        async with endpoint.listening(config.metrics_host, config.metrics_port):
            await connection.open()
            await worker_loop.run()
    finally:
        await cancel_and_wait(confinement_report)
        docker.close()
        await connection.close()


async def build_sandbox_store(  # noqa: PLR0913, PLR0917 - the ports of a host
    config: WorkerSettings,
    host_id: str,
    docker: DockerEngine,
    engine: Engine,
    images: ImageStore,
    garbage_collector: ContainerGarbageCollector,
    metrics: WorkerMetrics,
) -> SandboxStore | None:
    """Return the sandbox store, or None if launchers cannot be started: then runs start cold."""
    program = Path(config.launcher) if config.launcher not in ("", "off") else build.find()
    reason = "ABACO_LAUNCHER is off" if config.launcher == "off" else ""
    if not reason and (program is None or not program.is_file()):
        reason = "there is no launcher: the set-up builds it if there is a C compiler"
    if not reason and not engine.location.startswith("unix://"):
        reason = f"the container engine at {engine.location} may be on another machine"
    helper: Helper | None = None
    if not reason and program is not None:
        try:
            folder = Path(config.worker_dir)
            helper = await find_helper(
                program, folder, engine.location, lambda: docker.helper(host_id, program, folder)
            )
        except EngineFault as error:
            reason = str(error)
    if reason or program is None or helper is None:
        logger.warning(
            "every run starts cold, which takes longer: %s. See docs/explanation/launcher.md",
            reason,
        )
        return None
    hindrance = sandbox_hindrance(platform.release())
    if config.isolation == "sandbox" and hindrance:
        logger.warning(
            "each message gets a container of its own, which takes longer: %s. See"
            " docs/explanation/launcher.md",
            hindrance,
        )
    else:
        logger.info(
            "each message gets a %s of its own, unless its actor sets isolation", config.isolation
        )
    kernel = LinuxKernel()
    return SandboxStore(
        engine,
        images,
        garbage_collector,
        BridgeNetwork(engine, kernel, engine_only=engine_only_reason(config, kernel)),
        helper,
        folder=Path(config.worker_dir),
        program=program,
        max_starts=config.starts_at_once,
        hindrance=hindrance,
        measure=metrics.measure_sandbox,
    )


if __name__ == "__main__":
    main()
