"""The end of output that is kept for a time: actors say for how long, in ``log_ex``."""

import asyncio
import logging

from abaco_projector.adapters.postgres_session import open_session
from abaco_projector.projector_settings import Config
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0
BATCH_EXECUTIONS = 1000


async def keep_expiring(config: Config, *, pause: float = PAUSE_SECONDS) -> None:
    """Now and then remove what has expired, without end. An outage is none of our business."""
    while True:
        await asyncio.sleep(pause)
        try:
            await expire(config.postgres_dsn)
        except Unavailable as error:
            logger.debug("output expires later: %s", error)


async def expire(dsn: str, *, batch: int = BATCH_EXECUTIONS) -> int:
    """Remove expired output, some executions at a time; return of how many it was.

    Raises:
        Unavailable: the database is away; what was removed is removed.
    """
    removed = 0
    async with open_session(dsn) as session:
        while True:
            async with session.border():
                count = int(await session.value("expire_output", batch))
            removed += count
            if count < batch:
                return removed
