"""The sandbox pool: keeps the idle sandbox of a worker, and makes its replacement.

A container that stays is given back after each run, and is idle again when its launcher is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from abaco_proto.errors import AbacoError, Unavailable
from abaco_proto.events import StartKind
from abaco_worker.domain.disposition import back_off
from abaco_worker.domain.sandbox_spec import SandboxSpec
from abaco_worker.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

MakeSandbox = Callable[[SandboxSpec], Awaitable[Sandbox]]


class SandboxPool:
    """One worker's next sandbox: none, one that is being made or cleaned up, or an idle one.

    ``make`` makes a sandbox, ``discard`` removes one.
    """

    def __init__(self, make: MakeSandbox, discard: Callable[[Sandbox], None]) -> None:
        """The pool is empty until :meth:`prewarm` or :meth:`adopt`."""
        self._make = make
        self._discard = discard
        self._spec: SandboxSpec | None = None
        self._spec_sequence = 0
        self._next: asyncio.Future[Sandbox] | None = None
        self._next_spec: SandboxSpec | None = None
        self._next_given_back = False
        self._failures = 0
        self._closed = False
        self._refill: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> Sandbox | None:
        """The idle sandbox, or None if there is none or it has exited."""
        pending = self._next
        if pending is None or not pending.done() or pending.cancelled() or pending.exception():
            return None
        sandbox = pending.result()
        return sandbox if sandbox.alive else None

    @property
    def image(self) -> str:
        """The image that the next message probably needs; empty if none is known."""
        return self._spec.image if self._spec is not None else ""

    @property
    def making(self) -> bool:
        """Whether a sandbox is being made."""
        return self._next is not None and not self._next.done()

    async def wait_idle(self, timeout_seconds: float) -> Sandbox | None:
        """Return the idle sandbox, after waiting for one that is being made."""
        if self._next is not None:
            await asyncio.wait({self._next}, timeout=timeout_seconds)
        return self.idle

    def prewarm(self, spec: SandboxSpec, sequence: int) -> None:
        """Keep a sandbox with this spec from now on; ``sequence`` is that of its definition."""
        if self._closed:
            return
        self._spec, self._spec_sequence = spec, max(sequence, self._spec_sequence)
        if self._next is not None and not self._matches(spec):
            self._drop()
        self.fill()

    def learn_spec(self, spec: SandboxSpec, sequence: int) -> None:
        """Use the spec of a run if none is known, or only that of an older definition.

        A restarted worker receives no updates of the actor from before its start.
        """
        if not self._closed and (self._spec is None or sequence > self._spec_sequence):
            self._spec, self._spec_sequence = spec, sequence

    def update_spec(self, spec: SandboxSpec, sequence: int) -> None:
        """Apply an update of the actor. Other limits with the same image need another sandbox.

        If the image changes, the scheduler stops this worker, and nothing is made for it.
        """
        if self._spec is not None and self._spec.image == spec.image:
            self.prewarm(spec, sequence)

    def replace(self, sandbox: Sandbox) -> None:
        """Make a replacement of the idle sandbox, if it is this one."""
        if self.idle is sandbox:
            self._drop()
            self.fill()

    def adopt(self, sandbox: Sandbox) -> None:
        """Keep a sandbox that a previous process made, unless a run has asked for another one."""
        other = self._next is not None or self._spec not in (None, sandbox.record.spec)
        if self._closed or other:
            self._discard(sandbox)
            return

        async def adopted() -> Sandbox:
            return sandbox

        self._spec = self._next_spec = sandbox.record.spec
        self._next_given_back = False
        self._next = asyncio.ensure_future(adopted())

    def give_back(self, sandbox: Sandbox) -> bool:
        """Keep a container that stays, after a run; False if the next run needs another one."""
        if self._closed or self._next is not None or sandbox.record.spec != self._spec:
            return False
        self._next_spec, self._next_given_back = self._spec, True
        self._next = asyncio.ensure_future(self._idle_again(sandbox))
        return True

    async def _idle_again(self, sandbox: Sandbox) -> Sandbox:
        try:
            await sandbox.wait_idle()
        except Exception:
            self._discard(sandbox)
            raise
        return sandbox

    async def ready(self) -> Sandbox:
        """Return the idle sandbox, after waiting for it. Raises what its making raises."""
        pending = self._next
        assert pending is not None
        try:
            return await asyncio.shield(pending)
        except (AbacoError, OSError):
            if self._next is pending:  # the next attempt must make another one
                self._next = None
            raise

    async def take(self, spec: SandboxSpec) -> tuple[Sandbox, StartKind]:
        """Remove and return a sandbox with this spec, and how it came to be ready.

        A sandbox that is awaited here belongs to the caller. An update in the meantime applies to
        the next one. Raises as :meth:`ready`.
        """
        idle = self.idle
        if idle is not None and idle.record.spec == spec:
            self._next = None
            return idle, StartKind.SANDBOX if idle.record.stays else StartKind.POOL
        if self._spec not in (None, spec) and self._matches(self._spec):
            # A rerun can need another spec: the idle sandbox is kept for the next message.
            return await asyncio.shield(asyncio.ensure_future(self._make(spec))), StartKind.COLD
        if self._next is None or self._next.done() or not self._matches(spec):
            self._drop()
            self._start(spec)
        pending, self._next = self._next, None
        assert pending is not None
        if not self._next_given_back:
            return await asyncio.shield(pending), StartKind.COLD
        try:
            return await asyncio.shield(pending), StartKind.SANDBOX
        except Unavailable as error:
            _log_replacement(error)
            return await self.take(spec)

    def fill(self, delay_seconds: float = 0.0) -> None:
        """Make a sandbox if the pool is empty, at once or after a delay."""
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        if delay_seconds > 0:
            loop = asyncio.get_running_loop()
            self._refill = loop.call_later(delay_seconds, self.fill)
        elif self._next is None and self._spec is not None:
            self._start(self._spec)

    def check(self) -> None:
        """Replace a sandbox that exited or could not be made. Call this periodically."""
        if self._next is None or not self._next.done() or self.idle is not None:
            return
        error = None if self._next.cancelled() else self._next.exception()
        if error and self._next_given_back:
            _log_replacement(error)
            self._drop()
            self.fill()
            return
        self._failures = self._failures + 1 if error else 0
        self._drop()
        if error:
            seconds = back_off(self._failures)
            logger.warning(
                "no sandbox was made: %s. The next attempt is in %.1f s; until then a message"
                " waits for its container. If this repeats, check the container engine",
                error,
                seconds,
            )
            self.fill(seconds)
        else:
            logger.warning(
                "an idle sandbox exited, and another one is started. If this repeats, look in the"
                " engine's log for what stops the containers"
            )
            self.fill()

    def close(self) -> None:
        """Discard the sandbox, and make no other one."""
        self._closed = True
        self._spec = None
        self.fill()  # cancels a delayed refill
        self._drop()

    def detach(self) -> None:
        """Leave the sandbox running without a connection: the next process adopts it."""
        self._spec = None
        self.fill()
        pending, self._next = self._next, None
        if pending is not None:
            pending.add_done_callback(_close_connection)
            pending.cancel()

    def _matches(self, spec: SandboxSpec | None) -> bool:
        return self._next is not None and self._next_spec == spec

    def _start(self, spec: SandboxSpec) -> None:
        self._next_spec, self._next_given_back = spec, False
        self._next = asyncio.ensure_future(self._make(spec))

    def _drop(self) -> None:
        """Discard the sandbox, after its making: a cancelled one could leave a container behind."""
        pending, self._next = self._next, None
        if pending is not None:
            pending.add_done_callback(self._discard_made)

    def _discard_made(self, pending: "asyncio.Future[Sandbox]") -> None:
        if not pending.cancelled() and pending.exception() is None:
            self._discard(pending.result())


def _log_replacement(error: BaseException) -> None:
    logger.warning(
        "a worker's container is replaced: %s. If this repeats, look in the engine's log for what"
        " stops the containers",
        error,
    )


def _close_connection(pending: "asyncio.Future[Sandbox]") -> None:
    if not pending.cancelled() and pending.exception() is None:
        pending.result().close()


def empty_pool() -> SandboxPool:
    """Return a pool that is always empty, for a host without a launcher."""

    async def make(_: SandboxSpec) -> Sandbox:
        raise AssertionError("there is no launcher")

    return SandboxPool(make, lambda _: None)
