"""What the engine confines containers with, beside namespaces: said once at the start."""

import asyncio
import logging

from abaco_proto.errors import Unavailable
from abaco_worker.app.worker_metrics import Metrics
from abaco_worker.domain.containers import CONFINEMENTS
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.engine_port import Engine

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0


async def tell(engine: Engine, metrics: Metrics) -> None:
    """Log it and count it, as soon as the engine answers."""
    while True:
        try:
            found = await engine.confinements()
        except (Unavailable, EngineFault) as error:
            logger.debug("confinement not known yet: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            break
    for name in CONFINEMENTS:
        metrics.confined.labels(name).set(name in found)
    logger.info("%s", words(found))


def words(found: frozenset[str]) -> str:
    """What confines containers, and what does not, for a person."""
    by = [name for name in CONFINEMENTS if name in found]
    without = [name for name in CONFINEMENTS if name not in found]
    said = f"containers are confined by {', '.join(by) or 'none of these'}"
    return f"{said}; not in use: {', '.join(without)}" if without else said
