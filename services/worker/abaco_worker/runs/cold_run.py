"""A cold run: one assignment in a container of its own, on a host without a launcher.

Every step can be repeated. A worker that crashed gets the same assignment again, finds the
container by its name, and continues from the container's state. An assignment is acknowledged
after ``execution.finished`` is in the log, and that is appended after all output is recorded.
"""

import asyncio
import logging
import time

from abaco_jetstream.retry import Outage, every, retry_until_available
from abaco_proto import events as ev
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.waiting import cancel_and_wait, wait_for_first
from abaco_worker.domain import event_builders
from abaco_worker.domain.engine_errors import CannotStart, ImageMissing, RunLost
from abaco_worker.domain.engine_values import Container, ContainerSpec
from abaco_worker.domain.run_spec import RunSpec, container_spec
from abaco_worker.domain.sandbox_spec import Limits, limits
from abaco_worker.domain.work_item_state import WorkItemState
from abaco_worker.engine.engine_port import Engine
from abaco_worker.runs.output_recorder import OutputRecorder
from abaco_worker.runs.usage_sampler import UsageSampler

logger = logging.getLogger(__name__)

RECHECK_SECONDS = 5.0
"""After a longer run the state is read again: it may have been assigned to another host."""

WAIT_SECONDS = 2.0
WAIT_TRUNCATED_SECONDS = 20.0
STOP_PAUSE_SECONDS = 0.5
CAUSE_PAUSES_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)


async def execute(host: HostContext, run_spec: RunSpec, state: WorkItemState) -> bool:
    """Run it and report the result; return False if it turned out to be no longer wanted.

    Raises:
        ImageRefused: the image was removed and cannot be pulled again.
        ContainerMissing: something else removed the container.
        RunLost: the run was halted before it began.
        EngineFault, Unavailable: the engine fails or is unavailable; a retry may succeed.
    """
    if run_spec.message.rerun is not None:
        run_spec = await host.with_rerun_image(run_spec, run_spec.message.rerun)
    spec = container_spec(run_spec, host.config)
    begin = time.monotonic()
    if state.halt_requested:
        host.cancellations.cancel(run_spec.recorded.tenant, run_spec.assignment.execution_id)
    try:
        container_id = await _running_container(host, run_spec, spec)
    except CannotStart as error:
        event = event_builders.container_run_not_started(run_spec, error)
        await host.report(run_spec.recorded, event)
        return True
    finished = await _follow_to_end(host, run_spec, container_id, start_reported=state.run_started)
    if time.monotonic() - begin > RECHECK_SECONDS:
        state = await host.read_state(run_spec.recorded)
        if not state.run_wanted:
            return False
    await host.report(run_spec.recorded, finished)
    return True


async def _running_container(host: HostContext, run_spec: RunSpec, spec: ContainerSpec) -> str:
    """Return the id of the container, started now or by a previous process."""
    with host.spans.span("prepare"):
        container = await _created(host, spec)
    if container.never_started:
        halt = host.cancellations.event_of(
            run_spec.recorded.tenant, run_spec.assignment.execution_id
        )
        if halt.is_set():
            raise RunLost("halted before it started")
        async with host.cold_start_lock:
            with host.spans.span("launch"):
                await host.engine.start(container.container_id)
    return container.container_id


async def _created(host: HostContext, spec: ContainerSpec) -> Container:
    try:
        return await host.engine.create(spec)
    except ImageMissing:
        await host.images.ensure(spec.image)
        return await host.engine.create(spec)


async def _follow_to_end(
    host: HostContext, run_spec: RunSpec, container_id: str, *, start_reported: bool
) -> ev.ExecutionFinished:
    """Record a started container until it has exited.

    The output is followed at once and not after the start is reported, because the engine drops
    the beginning of a large output.
    """
    allowed = limits(run_spec.definition, host.config)
    sampler = UsageSampler(host.engine)
    sampling = asyncio.create_task(sampler.run(container_id))
    reporting: asyncio.Task[None] | None = None
    if not start_reported:
        reporting = asyncio.create_task(_report_start(host, run_spec, container_id))
    recorder = OutputRecorder(host.outputs, run_spec, allowed.max_log_bytes)
    termination = Termination(host, run_spec, container_id)
    enforcing = asyncio.create_task(termination.enforce(allowed))
    try:
        with host.spans.span("output"):
            container = await _record_to_end(host.engine, container_id, recorder)
        await reporting if reporting is not None else None
    finally:
        await cancel_and_wait(sampling, reporting, enforcing)
    return event_builders.container_run_finished(
        run_spec, container, sampler.usage, recorder.counter, termination.by
    )


class Termination:
    """Ends a run for a halt, its time limit, or its disk limit; ``by`` is which of them."""

    def __init__(self, host: HostContext, run_spec: RunSpec, container_id: str) -> None:
        self._host = host
        self._run_spec = run_spec
        self._container_id = container_id
        self.by = ev.EndedBy.ITSELF

    async def enforce(self, allowed: Limits) -> None:
        """Wait for one of them, and stop the container."""
        tenant, event = self._run_spec.recorded.tenant, self._run_spec.assignment
        halt = self._host.cancellations.event_of(tenant, event.execution_id)
        disks = self._host.disks
        async with disks.monitored(self._container_id, allowed.max_disk_bytes) as exceeded:
            try:
                async with asyncio.timeout(allowed.max_run_seconds or None):
                    await wait_for_first(halt.wait(), exceeded.wait())
                self.by = ev.EndedBy.HALT if halt.is_set() else ev.EndedBy.MAX_DISK_BYTES
            except asyncio.TimeoutError:
                self.by = ev.EndedBy.MAX_RUN_SECONDS
        grace = self._host.config.halt_grace_seconds
        await retry_until_available(
            lambda: self._host.engine.stop(self._container_id, grace),
            Outage("the container engine", log=logger),
            backoff=every(STOP_PAUSE_SECONDS),
        )


async def _report_start(host: HostContext, run_spec: RunSpec, container_id: str) -> None:
    container = await host.engine.inspect(container_id)
    digest = await host.images.digest(run_spec.image, container.image_id)
    event = event_builders.container_run_started(run_spec, container, digest)
    await host.report(run_spec.recorded, event)


async def _record_to_end(engine: Engine, container_id: str, recorder: OutputRecorder) -> Container:
    """Record the output to its end, and return the exited container.

    Following can end before the last lines, and it ends if the engine goes away. So its end proves
    nothing: the worker waits until the container has exited, and then reads the rest.
    """
    while True:
        if not recorder.counter.truncated:
            await recorder.record(engine.output(container_id, follow=True))
        timeout = WAIT_TRUNCATED_SECONDS if recorder.counter.truncated else WAIT_SECONDS
        container = await engine.wait(container_id, timeout)
        if container.ended:
            break
    if not recorder.counter.truncated:
        await recorder.record(engine.output(container_id, follow=False))
    return await _with_cause(engine, container)


async def _with_cause(engine: Engine, container: Container) -> Container:
    """Return a killed container with the cause of its end.

    The engine learns the exit code and the cause separately, and may report the cause later.
    """
    for pause in CAUSE_PAUSES_SECONDS:
        if container.exit_code != event_builders.SIGKILL_EXIT_CODE or container.oom_killed:
            break
        await asyncio.sleep(pause)
        container = await engine.inspect(container.container_id)
    return container
