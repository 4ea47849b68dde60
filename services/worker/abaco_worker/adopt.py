"""What an earlier life of this host's worker left behind: containers, found by their labels.

One whose attempt still counts is left alone: its assignment was never settled, so it comes again
and finds the container. One whose attempt is over is removed. One that no assignment of our log
explains is not ours to touch: it may belong to another installation that took the same host id.
"""

import asyncio
import logging

from abaco_proto.errors import Unavailable
from abaco_worker.engine import EngineFault, Labelled
from abaco_worker.host import Host, patiently
from abaco_worker.sandbox import HOST, belongs, marked_sequence

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0


async def adopt(host: Host) -> None:
    """Look at every container labelled with our host id, once the engine answers."""
    while True:
        try:
            found = await host.engine.labelled(HOST, host.host_id)
            break
        except (Unavailable, EngineFault) as error:
            logger.warning("%s", error)
            await asyncio.sleep(PAUSE_SECONDS)
    for container in found:
        await _judge(host, container)


async def _judge(host: Host, container: Labelled) -> None:
    sequence = marked_sequence(container.labels)
    recorded = await patiently(lambda: host.log.at(sequence)) if sequence else None
    if recorded is None or not belongs(container.labels, recorded):
        logger.warning("container %s is of no work in our log: left", container.container_id[:12])
    elif (await host.look(recorded)).run_wanted:
        logger.info("container %s: its run is still wanted", container.container_id[:12])
    else:
        logger.info("container %s: its run is over, removed", container.container_id[:12])
        host.sweeper.take(container.container_id)
