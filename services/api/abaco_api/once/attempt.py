"""An attempt to carry out a request with a key: known to those who append, through its context."""

import asyncio
from collections.abc import Generator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from abaco_proto.envelope import Recorded
from abaco_proto.log import EventLog

_current: ContextVar["Attempt | None"] = ContextVar("attempt", default=None)


class AlreadyDone(Exception):
    """The request led to an event before, and must not lead to another."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(recorded.id)
        self.recorded = recorded


@dataclass(slots=True)
class Attempt:
    """One try of one process.

    ``filter`` selects what the request may lead to, which must be of the history that an append
    of it has a condition on. ``after`` is a sequence before its event. Until ``alone_until``, a
    time of the event loop, nobody else tries. ``recorded`` is the event, once it is known.
    """

    log: EventLog
    filter: str
    cause: str
    after: int
    alone_until: float
    recorded: Recorded | None = None

    async def look(self) -> Recorded | None:
        """The event that the request has led to, by whomever, if it has."""
        async with aclosing(self.log.read([self.filter], after=self.after)) as batches:
            async for batch in batches:
                for recorded in batch:
                    if recorded.causation_id == self.cause:
                        self.recorded = recorded
                        return recorded
                    self.after = recorded.sequence
        return None

    async def check(self) -> None:
        """What must be done between deciding on a history and appending to it.

        Raises:
            AlreadyDone: there is nothing to append.
        """
        assert self.recorded is None, "one request with a key leads to one event"
        if asyncio.get_running_loop().time() >= self.alone_until:
            found = await self.look()
            if found is not None:
                raise AlreadyDone(found)


def current() -> Attempt | None:
    """The attempt that this code runs in."""
    return _current.get()


@contextmanager
def attempting(attempt: Attempt | None) -> Generator[None, None, None]:
    """Everything inside is done for this attempt, or for none."""
    before = _current.set(attempt)
    try:
        yield
    finally:
        _current.reset(before)
