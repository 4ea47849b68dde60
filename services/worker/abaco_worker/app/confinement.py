"""Log and measure once what the engine confines containers with, beside namespaces."""

import logging

from abaco_jetstream.retry import Outage, every, retry_until_available
from abaco_proto.errors import Unavailable
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.engine_values import CONFINEMENTS
from abaco_worker.engine.engine_port import Engine

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0


async def report_confinement(engine: Engine, metrics: WorkerMetrics) -> None:
    """Log and measure the confinement when the engine is available."""
    found = await retry_until_available(
        engine.confinements,
        Outage("the container engine", log=logger, level=logging.DEBUG),
        backoff=every(PAUSE_SECONDS),
        errors=(Unavailable, EngineFault),
    )
    for name in CONFINEMENTS:
        metrics.confinement.labels(name).set(name in found)
    logger.info("%s", describe_confinement(found))


def describe_confinement(found: frozenset[str]) -> str:
    """Return a line that names what confines containers, and what is not in use."""
    used = [name for name in CONFINEMENTS if name in found]
    unused = [name for name in CONFINEMENTS if name not in found]
    line = f"containers are confined by {', '.join(used) or 'none of these'}"
    return f"{line}; not in use: {', '.join(unused)}" if unused else line
