"""One assignment in a sandbox, from the request to its launcher to the report.

Every step can be taken again: a worker that died anywhere in here begins anew with the same
assignment, finds the sandbox that was taken for it by its folder, and goes on from how that
stands. The launcher runs one request at most, so nothing runs twice.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from abaco_proto import events as ev
from abaco_proto.errors import Refused, Unavailable
from abaco_worker.app.host import Host
from abaco_worker.app.waiting import cancelled, first
from abaco_worker.domain import event_builders
from abaco_worker.domain.container_labels import mark
from abaco_worker.domain.engine_errors import RunLost
from abaco_worker.domain.run_limits import limits
from abaco_worker.domain.run_report import Message, Report, Started
from abaco_worker.domain.run_spec import Order, request
from abaco_worker.domain.sandbox_record import Made, Taken
from abaco_worker.domain.sandbox_spec import blueprint
from abaco_worker.domain.work_item_state import Standing
from abaco_worker.runs.output_recorder import Recorder
from abaco_worker.sandbox.launcher_client import tail
from abaco_worker.sandbox.sandbox import FOUND_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import Place
from abaco_worker.sandbox.sandbox_pool import Stock
from abaco_worker.sandbox.sandbox_store import Sandboxes

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 5.0
"""A run that took longer may have been given to another host meanwhile."""

REFILL_SECONDS = 0.25
"""Longer runs have their successor's sandbox started beside them; shorter ones are left alone."""


async def execute(  # noqa: PLR0913 - a host, a seat, and what it is to do
    host: Host,
    sandboxes: Sandboxes,
    stock: Stock,
    order: Order,
    standing: Standing,
    *,
    taken_at: str,
) -> bool:
    """Run an order and report it; False when on the way it turned out not to be wanted any more.

    ``taken_at`` is when the worker took the assignment up.

    Raises:
        ImageRefused: its image is gone and cannot be had again.
        RunLost: the sandbox went away under our hands, or the run was to halt before it began.
        EngineFault, Unavailable: no sandbox could be made; trying again may help.
    """
    since = time.monotonic()
    if standing.halt_requested:
        host.interruptions.interrupt(order.recorded.tenant, order.assignment.execution_id)
    if order.message.rerun is None:  # else its definition is that of then
        stock.remember(blueprint(order.definition, host.config))
    run = await _begin(host, sandboxes, stock, order, taken_at)
    try:
        finished = await run.attend(reported=standing.run_started)
    finally:
        run.sandbox.close()
    if run.lost or time.monotonic() - since > LOOK_AGAIN_SECONDS:
        standing = await host.look(order.recorded)
        if not standing.run_wanted:
            return False
    await host.report(order.recorded, finished)
    return True


async def _begin(
    host: Host, sandboxes: Sandboxes, stock: Stock, order: Order, taken_at: str
) -> "Run":
    """The run in the sandbox it was begun in before a crash, or in one that is taken now."""
    place = sandboxes.taken_for(mark(order.recorded))
    if place is not None:
        return await _found(host, order, place)
    halt = host.interruptions.of(order.recorded.tenant, order.assignment.execution_id)
    if halt.is_set():
        raise RunLost("halted before it started")
    with host.spans.span("prepare"):
        order = await host.with_image(order)
        drawn = blueprint(order.definition, host.config, order.image)
        sandbox, start_kind = await stock.take(drawn)
        if await _is_outdated(host, sandbox):
            sandboxes.discard(sandbox)
            sandbox, start_kind = await stock.take(drawn)
    stock.fill(REFILL_SECONDS)
    taken = Taken(
        mark=mark(order.recorded),
        start_kind=start_kind,
        taken_at=taken_at,
        state_sequence=order.state_sequence,
    )
    try:
        sandboxes.take(sandbox, taken)
    except BaseException:  # a full disk: it is the worker's no more, so nobody else removes it
        sandboxes.discard(sandbox)
        raise
    run = Run(host, order, sandbox, taken)
    await run.launch()
    return run


async def _is_outdated(host: Host, sandbox: Sandbox) -> bool:
    """Whether the name of its image stands for another one by now."""
    try:
        return await host.images.moved(sandbox.blueprint.image, sandbox.made.image.image_id)
    except BaseException:  # the service ends: it is found again
        sandbox.close()
        raise


async def _found(host: Host, order: Order, place: Place) -> "Run":
    made, taken = place.made(Made), place.taken()
    if made is None or taken is None:
        raise RunLost("its sandbox is damaged")
    run = Run(host, order, Sandbox(place, made), taken)
    try:
        if place.read_report() is not None:
            return run
    except Unavailable as error:
        raise RunLost(f"its report is damaged: {error}") from error
    try:
        waits = await run.sandbox.connect(FOUND_SECONDS)
    except Unavailable as error:
        if place.read_report() is None:
            raise RunLost(f"its container is gone: {error}") from error
        return run
    if waits:
        await run.launch()
    return run


class Run:
    """An order in its sandbox."""

    def __init__(self, host: Host, order: Order, sandbox: Sandbox, taken: Taken) -> None:
        """Nothing is asked of the sandbox yet."""
        self._host = host
        self._order = order
        self._taken = taken
        self._wish = ev.EndedBy.ITSELF
        self.sandbox = sandbox

    @property
    def lost(self) -> bool:
        """Whether the seat was given up by the scheduler."""
        return self._interruption(self._order.assignment.worker_id).is_set()

    async def launch(self) -> None:
        """Ask the launcher to run the order.

        Raises:
            RunLost: it went away; whether it began cannot be told.
        """
        assert self.sandbox.launcher is not None
        wanted = request(self._order, self.sandbox.made.image, self._host.config)
        try:
            with self._host.spans.span("launch"):
                await self.sandbox.launcher.launch(wanted)
        except Unavailable as error:
            self.sandbox.close()
            raise RunLost(str(error)) from error
        except BaseException:
            self.sandbox.close()
            raise

    async def attend(self, *, reported: bool) -> ev.ExecutionFinished:
        """Be with the run until it has ended and its output is recorded.

        Raises:
            RunLost: it came to nothing.
        """
        ended = asyncio.Event()
        limit = limits(self._order.definition, self._host.config).max_log_bytes
        recorder = Recorder(self._host.outputs, self._order, limit)
        recording = asyncio.create_task(self._record(recorder, ended))
        watching = asyncio.create_task(self._watch())
        reporting: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._messages()) as messages:
                async for message in messages:
                    if reporting is None and not reported and _ran(message):
                        reporting = asyncio.create_task(self._report_start(message))
            ended.set()
            await recording
            await reporting if reporting is not None else None
        finally:
            await cancelled(recording, watching, reporting)
        assert isinstance(message, Report)
        return event_builders.ended(self._order, message, self._why(message), recorder.tally)

    async def _messages(self) -> AsyncGenerator[Message, None]:
        """What the launcher says, or has left behind."""
        try:
            async with aclosing(self._said()) as messages:
                async for message in messages:
                    if isinstance(message, Report) and message.stopped:
                        raise RunLost("its container was stopped from outside")
                    yield message
        except (Unavailable, Refused) as error:
            raise RunLost(f"its container ended without a report: {error}") from error

    async def _said(self) -> AsyncGenerator[Message, None]:
        if self.sandbox.launcher is None:
            report = self.sandbox.place.read_report()
            assert report is not None
            yield report
            return
        async with aclosing(self.sandbox.launcher.messages()) as messages:
            async for message in messages:
                yield message

    async def _record(self, recorder: Recorder, ended: asyncio.Event) -> None:
        with self._host.spans.span("output"):
            await recorder.record(tail(self.sandbox.place, ended))

    async def _report_start(self, message: Message) -> None:
        made = self.sandbox.made
        event = event_builders.launched(
            self._order, message.started_ns, made.container_id, made.image.digest, self._taken
        )
        await self._host.report(self._order.recorded, event)

    async def _watch(self) -> None:
        """End the run when a person, the scheduler or its disk wants that."""
        limit = limits(self._order.definition, self._host.config).max_disk_bytes
        async with self._host.disks.watched(self.sandbox.made.container_id, limit) as exceeded:
            halt = self._interruption(self._order.assignment.execution_id)
            lost = self._interruption(self._order.assignment.worker_id)
            await first(halt.wait(), lost.wait(), exceeded.wait())
            by_disk = exceeded.is_set() and not halt.is_set()
        self._wish = ev.EndedBy.MAX_DISK_BYTES if by_disk else ev.EndedBy.HALT
        try:
            self.sandbox.place.end(self._wish)
        except OSError as error:  # only a worker that is started anew would read it
            logger.warning("%s: cannot record why it is ended: %s", self.sandbox.place.name, error)
        if self.sandbox.launcher is not None:
            await self.sandbox.launcher.halt()

    def _why(self, report: Report) -> ev.EndedBy:
        recorded = self.sandbox.place.ended_by()
        return event_builders.ended_by(
            report, self._wish if recorded is ev.EndedBy.ITSELF else recorded
        )

    def _interruption(self, id: str) -> asyncio.Event:  # noqa: A002 - it is one
        return self._host.interruptions.of(self._order.recorded.tenant, id)


def _ran(message: Message) -> bool:
    """Whether the program was run at all."""
    return isinstance(message, Started) or not message.words
