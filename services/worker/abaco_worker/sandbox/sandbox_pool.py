"""The one sandbox that waits for a seat's next message, and its replacement in the background."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from abaco_proto.errors import AbacoError
from abaco_proto.events import StartKind
from abaco_worker.domain.disposition import back_off
from abaco_worker.domain.sandbox_spec import Blueprint
from abaco_worker.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

Make = Callable[[Blueprint], Awaitable[Sandbox]]


class Stock:
    """What a seat has in store: nothing, a sandbox that is being made, or one that waits.

    ``make`` makes a sandbox, ``discard`` throws one away.
    """

    def __init__(self, make: Make, discard: Callable[[Sandbox], None]) -> None:
        """Nothing is in store, and nothing is wanted."""
        self._make = make
        self._discard = discard
        self._wanted: Blueprint | None = None
        self._kind: Blueprint | None = None
        self._coming: asyncio.Future[Sandbox] | None = None
        self._failures = 0
        self._closed = False
        self._refill: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> Sandbox | None:
        """The sandbox that waits now, if it is alive."""
        coming = self._coming
        if coming is None or not coming.done() or coming.cancelled() or coming.exception():
            return None
        sandbox = coming.result()
        return sandbox if sandbox.alive else None

    @property
    def coming(self) -> bool:
        """Whether one is being made."""
        return self._coming is not None and not self._coming.done()

    async def made(self, seconds: float) -> Sandbox | None:
        """What waits, when what is being made is made, or that time is up."""
        if self._coming is not None:
            await asyncio.wait({self._coming}, timeout=seconds)
        return self.waits

    def want(self, blueprint: Blueprint) -> None:
        """Have a sandbox of this kind in store from now on."""
        if self._closed:
            return
        self._wanted = blueprint
        if self._coming is not None and not self._fits(blueprint):
            self._drop()
        self.fill()

    def remember(self, blueprint: Blueprint) -> None:
        """A seat of an earlier life does not know yet what it is for: a run tells."""
        self._wanted = self._wanted or (None if self._closed else blueprint)

    def renew(self, blueprint: Blueprint) -> None:
        """The actor was updated: the same image under other limits is another sandbox.

        With another image the seat is about to be given up, and nothing new is started for it.
        """
        if self._wanted is not None and self._wanted.image == blueprint.image:
            self.want(blueprint)

    def replace(self, sandbox: Sandbox) -> None:
        """Make another one in the place of what waits, if that is this one."""
        if self.waits is sandbox:
            self._drop()
            self.fill()

    def adopt(self, sandbox: Sandbox) -> None:
        """Keep a sandbox of an earlier life."""
        if self._closed:
            self._discard(sandbox)
            return

        async def found() -> Sandbox:
            return sandbox

        self._wanted = self._kind = sandbox.blueprint
        self._coming = asyncio.ensure_future(found())

    async def ready(self) -> Sandbox:
        """The sandbox that waits, when it does. Raises what hinders its making."""
        coming = self._coming
        assert coming is not None
        try:
            return await asyncio.shield(coming)
        except (AbacoError, OSError):
            if self._coming is coming:  # the next try is to make another one
                self._coming = None
            raise

    async def take(self, blueprint: Blueprint) -> tuple[Sandbox, StartKind]:
        """A sandbox of this kind, and whether it had been waiting. Raises as :meth:`ready`.

        What is waited for here is the taker's from now on: an update that comes meanwhile is for
        the next one.
        """
        waiting = self.waits
        if waiting is not None and waiting.blueprint == blueprint:
            self._coming = None
            return waiting, StartKind.POOL
        if self._wanted not in (None, blueprint) and self._fits(self._wanted):
            # A run that is run again is of another kind: what waits is for the next message.
            return await asyncio.shield(
                asyncio.ensure_future(self._make(blueprint))
            ), StartKind.COLD
        if self._coming is None or self._coming.done() or not self._fits(blueprint):
            self._drop()
            self._start(blueprint)
        coming, self._coming = self._coming, None
        assert coming is not None
        return await asyncio.shield(coming), StartKind.COLD

    def fill(self, after_seconds: float = 0.0) -> None:
        """Make a sandbox when there is none, now or after a while."""
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        if after_seconds > 0:
            loop = asyncio.get_running_loop()
            self._refill = loop.call_later(after_seconds, self.fill)
        elif self._coming is None and self._wanted is not None:
            self._start(self._wanted)

    def look(self) -> None:
        """Replace a sandbox that died, or that could not be made. To be called now and then."""
        if self._coming is None or not self._coming.done() or self.waits is not None:
            return
        error = None if self._coming.cancelled() else self._coming.exception()
        self._failures = self._failures + 1 if error else 0
        self._drop()
        if error:
            seconds = back_off(self._failures)
            logger.warning("no sandbox waits: %s; again in %.1f s", error, seconds)
            self.fill(seconds)
        else:
            logger.warning("a sandbox that waited is gone; another one is started")
            self.fill()

    def close(self) -> None:
        """Want nothing any more, for good, and throw away what there is."""
        self._closed = True
        self._wanted = None
        self.fill()  # forgets a refill that was to come
        self._drop()

    def let_go(self) -> None:
        """The service ends: what waits stays as it is, to be found again."""
        self._wanted = None
        self.fill()
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.add_done_callback(_let_go)
            coming.cancel()

    def _fits(self, blueprint: Blueprint | None) -> bool:
        return self._coming is not None and self._kind == blueprint

    def _start(self, blueprint: Blueprint) -> None:
        self._kind = blueprint
        self._coming = asyncio.ensure_future(self._make(blueprint))

    def _drop(self) -> None:
        """What is on its way is not cut off: a container could come of it unnoticed."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.add_done_callback(self._throw_away)

    def _throw_away(self, coming: "asyncio.Future[Sandbox]") -> None:
        if not coming.cancelled() and coming.exception() is None:
            self._discard(coming.result())


def _let_go(coming: "asyncio.Future[Sandbox]") -> None:
    if not coming.cancelled() and coming.exception() is None:
        coming.result().close()


def empty_stock() -> Stock:
    """A stock that never has anything, where nothing can wait."""

    async def make(_: Blueprint) -> Sandbox:
        raise AssertionError("there is no launcher")

    return Stock(make, lambda _: None)
