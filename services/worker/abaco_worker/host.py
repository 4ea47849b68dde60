"""What all work on this host shares: its identity, its settings, its ports."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.log import EventLog, OutputLog
from abaco_proto.retry import append_surely
from abaco_worker import standing
from abaco_worker.config import Config
from abaco_worker.engine import Engine
from abaco_worker.images import Images
from abaco_worker.standing import Standing
from abaco_worker.sweeper import Sweeper

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Host:
    """One host, and its side of the log. Whatever it asks of the log it waits for.

    ``starting`` is held while a container starts: engines start no more containers a second side
    by side than one after another, and Docker 20.10 can lock up for good when they come and go at
    the same instant (docs/adr/0006).
    """

    host_id: str
    capacity: int
    config: Config
    log: EventLog
    outputs: OutputLog
    engine: Engine
    images: Images
    sweeper: Sweeper
    starting: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    async def report(self, cause: Recorded, event: ev.Event) -> None:
        """Append what was caused by ``cause``, once, however long the log is away."""
        wish = draft(
            event,
            tenant=cause.tenant,
            time=datetime.now(UTC),
            causation_id=cause.id,
            correlation_id=cause.correlation_id or None,
            traceparent=cause.traceparent,
        )
        try:
            await append_surely(self.log, wish, after=cause.sequence)
        except Conflict:
            # An id says who reports what of which attempt: only this host before a crash could.
            logger.info("%s: was reported before", wish.id)

    async def look(self, wish: Recorded) -> Standing:
        """What the log says has become of a wish."""

        async def fold() -> Standing:
            found = standing.at_once(wish)
            async for batch in self.log.read(standing.filters(wish), after=wish.sequence):
                for recorded in batch:
                    found = standing.evolve(found, recorded)
            return found

        return await patiently(fold)

    async def event_at(self, sequence: int) -> ev.Event | None:
        """The event with this sequence."""
        recorded = await patiently(lambda: self.log.at(sequence))
        return None if recorded is None else recorded.event

    async def last_event(self, filter: str) -> Any:  # noqa: A002 - the word of the port
        """The last event a filter selects, or None."""
        recorded = await patiently(lambda: self.log.last(filter))
        return None if recorded is None else recorded.event


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives, when what it needs answers again."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(PAUSE_SECONDS)
