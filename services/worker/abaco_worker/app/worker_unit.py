"""One seat: what is asked of one worker, done strictly in order, one thing at a time."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from abaco_jetstream.ports import Delivery
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_telemetry.log_context import event_context
from abaco_worker.app.host import Host
from abaco_worker.app.work_items import Outcome, give_up, perform
from abaco_worker.domain.disposition import Disposition, back_off, disposition
from abaco_worker.domain.sandbox_spec import SeatKey
from abaco_worker.sandbox.sandbox_pool import Stock, empty_stock

logger = logging.getLogger(__name__)

STALE_SECONDS = 5.0
"""Work older than this may have been given to someone else. Wrong clocks cost a look, no more."""


class Seat:
    """A worker id on this host, from the first it is asked for until it is given up."""

    def __init__(self, host: Host, key: SeatKey, settled: Callable[[Delivery], None]) -> None:
        """``settled`` is called with each delivery that is in hand no longer."""
        self._host = host
        self.key = key
        self.stock = _stock(host, key)
        self._settled = settled
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._known = False

    def give(self, delivery: Delivery) -> None:
        """One more thing to do, after all that was given before."""
        self._queue.put_nowait(delivery)

    async def run(self) -> None:
        """Work until the seat is given up and nothing waits for it."""
        while True:
            delivery = await self._queue.get()
            outcome = await self._work(delivery)
            await delivery.done()
            self._settled(delivery)
            if outcome.leftover is not None:
                self._host.sweeper.take(outcome.leftover)
            self._known = outcome.seat_lives
            if outcome.seat_lives:
                self.stock.fill()
            else:
                self.stock.close()
            if not outcome.seat_lives and self._queue.empty():
                return

    async def _work(self, delivery: Delivery) -> Outcome:
        """Try until there is an outcome."""
        recorded = delivery.recorded
        name = "run" if isinstance(recorded.event, ev.ExecutionAssigned) else "seat"
        step = self._host.spans.span(name, parent=recorded.traceparent)
        with event_context(recorded), step:
            return await self._try(delivery, recorded)

    async def _try(self, delivery: Delivery, recorded: Recorded) -> Outcome:
        look = delivery.redelivered or not self._known or _stale(recorded)
        tries = 0
        while True:
            try:
                return await perform(self._host, self.stock, recorded, look=look or tries > 0)
            except Exception as error:  # disposition says what becomes of any
                tries += 1
                match disposition(error, tries):
                    case Disposition.RETRY:
                        await _pause(recorded, error, tries)
                    case Disposition.PARK:
                        logger.debug("%s given up", recorded.id, exc_info=error)
                        return await give_up(self._host, recorded, error)
                    case Disposition.DONE:
                        return Outcome(seat_lives=True)


def _stock(host: Host, key: SeatKey) -> Stock:
    """Where the seat's sandboxes come from; from nowhere without a launcher."""
    sandboxes = host.sandboxes
    if sandboxes is None:
        return empty_stock()
    return Stock(lambda drawn: sandboxes.make(host.host_id, key, drawn), sandboxes.discard)


async def _pause(recorded: Recorded, error: Exception, tries: int) -> None:
    seconds = back_off(tries)
    logger.warning("%s: %s; again in %.1f s", recorded.id, error, seconds)
    await asyncio.sleep(seconds)


def _stale(recorded: Recorded) -> bool:
    return abs((datetime.now(UTC) - recorded.time).total_seconds()) > STALE_SECONDS
