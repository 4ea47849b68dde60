"""The retry policy: call again, with growing pauses, until a service is available.

All loops that outlast an outage use this module, so that each outage is logged in the same way:
once when it begins, with its cause, and once when it ends.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec

from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Draft
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """The pauses between attempts, in seconds: each is ``factor`` times the one before."""

    first_seconds: float = 0.1
    max_seconds: float = 3.0
    factor: float = 2.0

    def pauses(self) -> Iterator[float]:
        """The pauses, without end."""
        pause = self.first_seconds
        while True:
            yield pause
            pause = min(self.factor * pause, self.max_seconds)


def every(seconds: float) -> Backoff:
    """The same pause after each attempt."""
    return Backoff(first_seconds=seconds, max_seconds=seconds)


class Outage:
    """Logs when a service becomes unavailable and when it is available again.

    Tasks that retry calls to the same service share one, so that an outage is logged once and not
    once per task. ``level`` is that of the first line: ``logging.DEBUG`` where another module
    already warns, as the connection does for NATS.
    """

    def __init__(
        self, service: str, *, log: logging.Logger = logger, level: int = logging.WARNING
    ) -> None:
        """``service`` is the name in log lines, for example ``Postgres``."""
        self._service = service
        self._log = log
        self._level = level
        self._active = False

    def report(self, error: Exception) -> None:
        """Note a failed attempt."""
        if not self._active:
            self._log.log(self._level, "%s is unavailable (%s); retrying", self._service, error)
        self._active = True

    def end(self) -> None:
        """Note an attempt that succeeded."""
        if self._active:
            self._log.log(min(self._level, logging.INFO), "%s is available again", self._service)
        self._active = False


async def retry_until_available(
    operation: Callable[[], Awaitable[T]],
    outage: Outage,
    *,
    backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    timeout_seconds: float | None = None,
    errors: tuple[type[Exception], ...] = (Unavailable,),
) -> T:
    """Call ``operation`` until it raises none of ``errors``, and return its result.

    Without ``timeout_seconds`` there is no limit. With it, no attempt begins later than that, and
    the error of the last attempt is raised.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pauses = backoff.pauses()
    while True:
        try:
            result = await operation()
        except errors as error:
            pause = next(pauses)
            if deadline is not None and time.monotonic() + pause > deadline:
                raise
            outage.report(error)
            await asyncio.sleep(pause)
        else:
            outage.end()
            return result


async def append_until_stored(
    log: EventLog,
    draft: Draft,
    *,
    after: int,
    backoff: Backoff = every(0.5),  # noqa: B008 - frozen
) -> int:
    """Append an event, retrying through any outage of the log; return its sequence.

    Use it for events that are true whether or not the log is available. Before each retry it
    searches the history after the sequence ``after`` for the event, because an outage may last
    longer than the stream's duplicate window.

    Raises:
        Conflict: as :meth:`abaco_jetstream.ports.EventLog.append`.
    """
    outcome_unknown = False

    async def append_once() -> int:
        nonlocal outcome_unknown
        if outcome_unknown and (found := await _sequence_of(log, draft, after)) is not None:
            return found
        outcome_unknown = True
        return await log.append(draft)

    outage = Outage("the log (NATS)", level=logging.DEBUG)
    return await retry_until_available(append_once, outage, backoff=backoff)


async def _sequence_of(log: EventLog, draft: Draft, after: int) -> int | None:
    """The sequence of the stored event, or None if it is not in the log."""
    async for batch in log.read([draft.subject], after=after):
        for recorded in batch:
            if recorded.id == draft.id:
                return recorded.sequence
    return None
