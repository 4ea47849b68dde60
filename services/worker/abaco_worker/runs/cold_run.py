"""One assignment in a container of its own, where there is no launcher.

Every step can be taken again: a worker that died anywhere in here begins anew with the same
assignment, finds the container by its name, and goes on from how it stands. Nothing is settled
before ``execution.finished`` is in the log, and that is not appended before all output is.
"""

import asyncio
import time

from abaco_proto import events as ev
from abaco_worker.app.host import Host
from abaco_worker.app.waiting import cancelled, first, patiently
from abaco_worker.domain import event_builders
from abaco_worker.domain.containers import Container, ContainerSpec
from abaco_worker.domain.engine_errors import CannotStart, ImageMissing, RunLost
from abaco_worker.domain.run_limits import Limits, limits
from abaco_worker.domain.run_spec import Order, container_spec
from abaco_worker.domain.work_item_state import Standing
from abaco_worker.engine.engine_port import Engine
from abaco_worker.runs.output_recorder import Recorder
from abaco_worker.runs.usage_sampler import Sampler

LOOK_AGAIN_SECONDS = 5.0
"""A run that took longer may have been given to another host meanwhile."""

END_SECONDS = 2.0
FULL_SECONDS = 20.0


async def execute(host: Host, order: Order, standing: Standing) -> bool:
    """Run an order and report it; False when on the way it turned out not to be wanted any more.

    Raises:
        ImageRefused: the image is gone and cannot be had again.
        ContainerMissing: somebody removed the container under our hands.
        RunLost: the run was to halt before it began.
        EngineFault, Unavailable: the engine fails or is away; trying again may help.
    """
    order = await host.with_image(order)
    spec = container_spec(order, host.config)
    since = time.monotonic()
    if standing.halt_requested:
        host.interruptions.interrupt(order.recorded.tenant, order.assignment.execution_id)
    try:
        container_id = await _running(host, order, spec)
    except CannotStart as refusal:
        await host.report(order.recorded, event_builders.never_started(order, refusal))
        return True
    finished = await _attend(host, order, container_id, reported=standing.run_started)
    if time.monotonic() - since > LOOK_AGAIN_SECONDS:
        standing = await host.look(order.recorded)
        if not standing.run_wanted:
            return False
    await host.report(order.recorded, finished)
    return True


async def _running(host: Host, order: Order, spec: ContainerSpec) -> str:
    """The id of the container, started: by us now, or by us before a crash."""
    with host.spans.span("prepare"):
        container = await _created(host, spec)
    if container.fresh:
        halt = host.interruptions.of(order.recorded.tenant, order.assignment.execution_id)
        if halt.is_set():
            raise RunLost("halted before it started")
        async with host.starting:
            with host.spans.span("launch"):
                await host.engine.start(container.container_id)
    return container.container_id


async def _created(host: Host, spec: ContainerSpec) -> Container:
    try:
        return await host.engine.create(spec)
    except ImageMissing:
        await host.images.ensure(spec.image)
        return await host.engine.create(spec)


async def _attend(
    host: Host, order: Order, container_id: str, *, reported: bool
) -> ev.ExecutionFinished:
    """Be with a started container until it has ended and its output is recorded.

    Its output is followed at once and not after the report: the engine forgets the beginning of
    very much.
    """
    allowed = limits(order.definition, host.config)
    sampler = Sampler(host.engine)
    sampling = asyncio.create_task(sampler.run(container_id))
    reporting = asyncio.create_task(_report_start(host, order, container_id, reported=reported))
    recorder = Recorder(host.outputs, order, allowed.max_log_bytes)
    end = End(host, order, container_id)
    watching = asyncio.create_task(end.watch(allowed))
    try:
        with host.spans.span("output"):
            container = await _to_the_end(host.engine, container_id, recorder)
        await reporting
    finally:
        await cancelled(sampling, reporting, watching)
    return event_builders.finished(order, container, sampler.usage, recorder.tally, end.by)


class End:
    """What the worker ends a run for: a person, its time, or its disk."""

    def __init__(self, host: Host, order: Order, container_id: str) -> None:
        self._host = host
        self._order = order
        self._container_id = container_id
        self.by = ev.EndedBy.ITSELF

    async def watch(self, allowed: Limits) -> None:
        """Wait for one of them, and stop the container."""
        tenant, event = self._order.recorded.tenant, self._order.assignment
        halt = self._host.interruptions.of(tenant, event.execution_id)
        disks = self._host.disks
        async with disks.watched(self._container_id, allowed.max_disk_bytes) as exceeded:
            try:
                async with asyncio.timeout(allowed.max_run_seconds or None):
                    await first(halt.wait(), exceeded.wait())
                self.by = ev.EndedBy.HALT if halt.is_set() else ev.EndedBy.MAX_DISK_BYTES
            except asyncio.TimeoutError:
                self.by = ev.EndedBy.MAX_RUN_SECONDS
        grace = self._host.config.halt_grace_seconds
        await patiently(lambda: self._host.engine.stop(self._container_id, grace))


async def _report_start(host: Host, order: Order, container_id: str, *, reported: bool) -> None:
    if not reported:
        container = await host.engine.inspect(container_id)
        digest = await host.images.digest(order.image, container.image_id)
        await host.report(order.recorded, event_builders.started(order, container, digest))


async def _to_the_end(engine: Engine, container_id: str, recorder: Recorder) -> Container:
    """Record output until there is no more; the container is as it stands at its end.

    Following ends now and then with the last lines unread, and when the engine goes away, so its
    end proves nothing: the container's own does, and then the rest is read.
    """
    while True:
        if not recorder.full:
            await recorder.record(engine.output(container_id, follow=True))
        patience = FULL_SECONDS if recorder.full else END_SECONDS
        container = await engine.wait(container_id, patience)
        if container.ended:
            break
    if not recorder.full:
        await recorder.record(engine.output(container_id, follow=False))
    if container.exit_code == event_builders.KILLED and not container.oom_killed:
        # The engine learns of the end and of what ended it on two ways.
        container = await engine.inspect(container_id)
    return container
