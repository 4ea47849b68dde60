"""The scheduler process: ``python -m abaco_scheduler``."""

import asyncio
import logging
import os
import sys
from typing import NoReturn

import uvloop

from abaco_jetstream import (
    Connection,
    JetStreamEventLog,
    JetStreamSnapshots,
    NatsHeartbeats,
)
from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_scheduler.app.code_digest import code_digest
from abaco_scheduler.app.scheduler_loop import Scheduler
from abaco_scheduler.app.scheduler_metrics import SchedulerMetrics
from abaco_scheduler.app.snapshot_manager import SnapshotManager
from abaco_scheduler.domain.policy import Policy
from abaco_scheduler.scheduler_settings import SchedulerSettings
from abaco_telemetry import log_format
from abaco_telemetry.context import Spans, create_spans
from abaco_telemetry.instrumented_event_log import InstrumentedEventLog
from abaco_telemetry.metrics_endpoint import MetricsEndpoint
from abaco_telemetry.shutdown import on_signal

logger = logging.getLogger(__name__)


def main() -> None:
    """Read the settings and run until SIGTERM or SIGINT; exit with 2 if a setting is wrong."""
    try:
        config = settings.read(SchedulerSettings, os.environ)
    except Malformed as error:
        _exit_malformed(error)
    log_format.configure_logging("scheduler", level=config.log_level, log_format=config.log_format)
    tracing = create_spans("abaco-scheduler", os.environ)
    try:
        uvloop.run(run(config, tracing))
    except Malformed as error:
        _exit_malformed(error)
    finally:
        tracing.close()


def _exit_malformed(error: Malformed) -> NoReturn:
    sys.stderr.write(f"abaco-scheduler: {error}\n")
    sys.exit(2)


async def run(config: SchedulerSettings, tracing: Spans) -> None:
    """Start, run the main loop, and shut down on SIGTERM or SIGINT.

    Raises:
        Malformed: a setting cannot be used; a port that is in use, too.
    """
    connection = Connection(config.nats_url, name="abaco-scheduler", replicas=config.nats_replicas)
    task = asyncio.current_task()
    assert task is not None
    on_signal(task.cancel)
    metrics = SchedulerMetrics()
    scheduler = build_scheduler(connection, config, metrics, tracing)
    endpoint = MetricsEndpoint(metrics.registry, scheduler.update_metrics)
    try:
        async with endpoint.listening(config.metrics_host, config.metrics_port):
            await connection.open()
            await scheduler.run()
    except asyncio.CancelledError:
        logger.info("the scheduler shuts down: it received SIGTERM or SIGINT")
    finally:
        await connection.close()


def build_scheduler(
    connection: Connection,
    config: SchedulerSettings,
    metrics: SchedulerMetrics,
    tracing: Spans,
) -> Scheduler:
    """Return a scheduler on the real adapters."""
    metrics.log.watch(connection)
    log = InstrumentedEventLog(JetStreamEventLog(connection), metrics.log)
    return Scheduler(
        log,
        NatsHeartbeats(connection),
        connection,
        policy_from(config),
        config.tenant,
        snapshots=SnapshotManager(JetStreamSnapshots(connection), log, code_digest()),
        metrics=metrics,
        spans=tracing,
    )


def policy_from(config: SchedulerSettings) -> Policy:
    """Return the settings that decisions depend on."""
    return Policy(
        host_timeout_seconds=config.host_timeout_seconds,
        max_attempts=config.max_attempts,
        retry_seconds=config.retry_seconds,
        retry_max_seconds=config.retry_max_seconds,
        time_slice_seconds=config.turn_seconds,
        worker_retry_seconds=config.worker_retry_seconds,
        worker_retry_max_seconds=config.worker_retry_max_seconds,
        worker_ttl_seconds=config.worker_ttl_seconds,
        max_tenant_workers=config.max_tenant_workers,
    )


if __name__ == "__main__":
    main()
