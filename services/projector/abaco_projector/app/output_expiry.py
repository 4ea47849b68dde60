"""Removes output after the time that an actor's ``log_ex`` sets."""

import asyncio
import logging

from abaco_projector.adapters.postgres_session import open_session
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0
BATCH_EXECUTIONS = 1000


async def expire_periodically(config: ProjectorSettings, *, pause: float = PAUSE_SECONDS) -> None:
    """Remove expired output every ``pause`` seconds, without end. An outage only delays it."""
    while True:
        await asyncio.sleep(pause)
        try:
            await expire(config.postgres_dsn)
        except Unavailable as error:
            logger.debug("expired output is removed at the next try: %s", error)


async def expire(dsn: str, *, batch: int = BATCH_EXECUTIONS) -> int:
    """Remove expired output, ``batch`` executions at a time; return the number of executions.

    Raises:
        Unavailable: the database is unavailable; finished batches stay removed.
    """
    removed = 0
    async with open_session(dsn) as session:
        while True:
            async with session.translated_errors():
                count = int(await session.fetch_value("expire_output", batch))
            removed += count
            if count < batch:
                return removed
