"""A sandbox run: one assignment in a sandbox, from the request to its launcher to the report.

Every step can be repeated. A worker that crashed gets the same assignment again, finds by the
sandbox directories which sandbox it used, and continues from the state of that sandbox. The
assignment is stored before the launcher gets the request, and a launcher tells which request it
runs and how the last one ended, so nothing runs twice.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from abaco_proto import events as ev
from abaco_proto.errors import Refused, Unavailable
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.waiting import cancel_and_wait, wait_for_first
from abaco_worker.domain import event_builders
from abaco_worker.domain.container_labels import assignment_key
from abaco_worker.domain.engine_errors import RunLost
from abaco_worker.domain.run_report import LauncherMessage, ProgramStarted, RunReport
from abaco_worker.domain.run_spec import RunSpec, run_request
from abaco_worker.domain.sandbox_record import SandboxAssignment
from abaco_worker.domain.sandbox_spec import limits, sandbox_spec
from abaco_worker.domain.work_item_state import WorkItemState
from abaco_worker.runs.output_recorder import OutputRecorder
from abaco_worker.sandbox.launcher_client import follow_output
from abaco_worker.sandbox.sandbox import RECONNECT_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import RunDirectory
from abaco_worker.sandbox.sandbox_pool import SandboxPool
from abaco_worker.sandbox.sandbox_store import AssignedRun, SandboxStore

logger = logging.getLogger(__name__)

RECHECK_SECONDS = 5.0
"""After a longer run the state is read again: it may have been assigned to another host."""

REFILL_SECONDS = 0.25
"""The pool makes the next sandbox during a run that is longer; a shorter run is not disturbed."""


async def execute(  # noqa: PLR0913 - a host, a worker, and its work item
    host: HostContext,
    sandboxes: SandboxStore,
    pool: SandboxPool,
    run_spec: RunSpec,
    state: WorkItemState,
    *,
    taken_at: str,
) -> bool:
    """Run it and report the result; return False if it turned out to be no longer wanted.

    ``taken_at`` is when the worker took up the assignment.

    Raises:
        ImageRefused: the image was removed and cannot be pulled again.
        RunLost: the sandbox exited during the run, or the run was halted before it began.
        EngineFault, Unavailable: no sandbox could be made; a retry may succeed.
    """
    begin = time.monotonic()
    if state.halt_requested:
        host.cancellations.cancel(run_spec.recorded.tenant, run_spec.assignment.execution_id)
    if run_spec.message.rerun is None:  # the definition of a rerun may be outdated
        spec = sandbox_spec(run_spec.definition, host.config)
        pool.learn_spec(spec, run_spec.assignment.actor_sequence)
    run = await _start_or_resume(host, sandboxes, pool, run_spec, taken_at)
    given_back = False
    try:
        finished = await run.follow_to_end(start_reported=state.run_started)
        if run.worker_lost or time.monotonic() - begin > RECHECK_SECONDS:
            state = await host.read_state(run_spec.recorded)
            if not state.run_wanted:
                return False
        await host.report(run_spec.recorded, finished)
        # Not before: if it is not kept, it is removed with its directory, which has the report.
        given_back = run.sandbox.reusable and pool.give_back(run.sandbox)
        if given_back:
            sandboxes.end_run(run.assignment.key)
    finally:
        if not given_back:
            run.sandbox.close()
    return True


async def _start_or_resume(
    host: HostContext, sandboxes: SandboxStore, pool: SandboxPool, run_spec: RunSpec, taken_at: str
) -> "SandboxRun":
    """Resume the run in the sandbox of a previous process, or start it in another one."""
    key = assignment_key(run_spec.recorded)
    assigned = sandboxes.assigned(key)
    if assigned is not None:
        return await _resume(host, sandboxes, run_spec, assigned)
    halt = host.cancellations.event_of(run_spec.recorded.tenant, run_spec.assignment.execution_id)
    if halt.is_set():
        raise RunLost("halted before it started")
    with host.spans.span("prepare"):
        if run_spec.message.rerun is not None:
            run_spec = await host.with_rerun_image(run_spec, run_spec.message.rerun)
        spec = sandbox_spec(run_spec.definition, host.config, run_spec.image)
        sandbox, start_kind = await pool.take(spec)
        if await _is_outdated(host, sandbox, run_spec):
            sandboxes.discard(sandbox)
            sandbox, start_kind = await pool.take(spec)
    if not sandbox.record.stays:
        pool.fill(REFILL_SECONDS)
    assignment = SandboxAssignment(
        key=key,
        start_kind=start_kind,
        taken_at=taken_at,
        state_sequence=run_spec.state_sequence,
    )
    try:
        assigned = sandboxes.assign(sandbox, assignment)
    except BaseException:  # such as a full disk; the pool has released the sandbox already
        sandboxes.discard(sandbox)
        raise
    run = SandboxRun(host, run_spec, sandbox, assignment, assigned.run)
    await run.launch()
    return run


async def _is_outdated(host: HostContext, sandbox: Sandbox, run_spec: RunSpec) -> bool:
    """Return whether the name of the sandbox's image refers to another image now."""
    accepted, newest = run_spec.assignment.message_sequence, run_spec.recorded.sequence
    name, image_id = sandbox.record.spec.image, sandbox.record.image.image_id
    try:
        return await host.images.has_moved(name, image_id, accepted, newest)
    except BaseException:  # this process ends, and the next one adopts the sandbox
        sandbox.close()
        raise


async def _resume(
    host: HostContext, sandboxes: SandboxStore, run_spec: RunSpec, assigned: AssignedRun
) -> "SandboxRun":
    directory, files = assigned.sandbox, assigned.run
    record, assignment = directory.read_record(), files.read_assignment()
    if record is None or assignment is None:
        raise RunLost("its sandbox is damaged")
    run = SandboxRun(host, run_spec, sandboxes.reopen(directory, record), assignment, files)
    sandboxes.claim(run.sandbox)
    try:
        if files.read_report() is not None:
            return run
    except Unavailable as error:
        raise RunLost(f"its report is damaged: {error}") from error
    try:
        idle = await run.sandbox.connect(RECONNECT_SECONDS)
    except Unavailable as error:
        if files.read_report() is None:
            raise RunLost(f"its container is gone: {error}") from error
        return run
    assert run.sandbox.launcher is not None
    run.last_report = run.sandbox.launcher.last_report(files)
    if run.last_report is not None:
        run.sandbox.close()
    elif idle:
        await run.launch()
    return run


class SandboxRun:
    """One run in its sandbox."""

    def __init__(
        self,
        host: HostContext,
        run_spec: RunSpec,
        sandbox: Sandbox,
        assignment: SandboxAssignment,
        files: RunDirectory,
    ) -> None:
        self._host = host
        self._run_spec = run_spec
        self._files = files
        self._limits = limits(run_spec.definition, host.config)
        self._halted_by = ev.EndedBy.ITSELF
        tenant, event = run_spec.recorded.tenant, run_spec.assignment
        self._halt = host.cancellations.event_of(tenant, event.execution_id)
        self._worker_lost = host.cancellations.event_of(tenant, event.worker_id)
        self.sandbox = sandbox
        self.assignment = assignment
        self.last_report: RunReport | None = None

    @property
    def worker_lost(self) -> bool:
        """Whether the scheduler has declared this worker lost."""
        return self._worker_lost.is_set()

    async def launch(self) -> None:
        """Send the request to the launcher.

        Raises:
            RunLost: the launcher exited; whether the program was started is unknown.
        """
        assert self.sandbox.launcher is not None
        try:
            await self.sandbox.attach_network()  # a previous process has done so
            request = run_request(
                self._run_spec,
                self.sandbox.record.image,
                self._host.config,
                self.sandbox.message_limits,
            )
            with self._host.spans.span("launch"):
                await self.sandbox.launcher.launch(request, self._files)
        except Unavailable as error:
            self.sandbox.close()
            raise RunLost(str(error)) from error
        except BaseException:
            self.sandbox.close()
            raise

    async def follow_to_end(self, *, start_reported: bool) -> ev.ExecutionFinished:
        """Record the run until it has ended.

        Raises:
            RunLost: it ended without a result.
        """
        ended = asyncio.Event()
        recorder = OutputRecorder(self._host.outputs, self._run_spec, self._limits.max_log_bytes)
        recording = asyncio.create_task(self._record(recorder, ended))
        enforcing = asyncio.create_task(self._enforce_end())
        reporting: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._messages()) as messages:
                async for message in messages:
                    if isinstance(message, RunReport) and message.stopped:
                        raise RunLost("its container was stopped from outside")
                    if reporting is None and not start_reported and _program_ran(message):
                        reporting = asyncio.create_task(self._report_start(message))
            ended.set()
            await recording
            await reporting if reporting is not None else None
        finally:
            await cancel_and_wait(recording, enforcing, reporting)
        assert isinstance(message, RunReport)
        by = event_builders.ended_by(message, self._requested_end())
        return event_builders.sandbox_run_finished(self._run_spec, message, by, recorder.counter)

    async def _messages(self) -> AsyncGenerator[LauncherMessage, None]:
        """Yield the launcher's messages, or only the report if the launcher has exited."""
        try:
            if self.last_report is not None:
                yield self.last_report
                return
            if self.sandbox.launcher is None:
                report = self._files.read_report()
                assert report is not None
                yield report
                return
            async with aclosing(self.sandbox.launcher.messages(self._files)) as messages:
                async for message in messages:
                    yield message
        except Unavailable as error:
            raise RunLost(f"its container ended without a report: {error}") from error
        except Refused as error:
            if self.sandbox.record.stays and self._host.sandboxes is not None:
                self._host.sandboxes.note_refusal(self.sandbox.record, error)
            raise RunLost(str(error)) from error

    async def _record(self, recorder: OutputRecorder, ended: asyncio.Event) -> None:
        with self._host.spans.span("output"):
            await recorder.record(follow_output(self._files, ended))

    async def _report_start(self, message: LauncherMessage) -> None:
        record = self.sandbox.record
        event = event_builders.sandbox_run_started(
            self._run_spec,
            message.started_ns,
            record.container_id,
            record.image.digest,
            self.assignment,
        )
        await self._host.report(self._run_spec.recorded, event)

    async def _enforce_end(self) -> None:
        """Halt the run after a halt request, the loss of the worker, or too many bytes on disk."""
        record, limit = self.sandbox.record, self._limits.max_disk_bytes
        sandbox = self.sandbox.directory if record.stays else None
        async with self._host.disks.monitored(record.container_id, limit, sandbox) as exceeded:
            await wait_for_first(self._halt.wait(), self._worker_lost.wait(), exceeded.wait())
            by_disk = exceeded.is_set() and not self._halt.is_set()
        self._halted_by = ev.EndedBy.MAX_DISK_BYTES if by_disk else ev.EndedBy.HALT
        try:
            self._files.write_ended_by(self._halted_by)
        except OSError as error:
            logger.warning(
                "%s: cannot store that the run ends by %s: %s. It ends anyway, but a worker that"
                " restarts now reports a halt; free disk space in ABACO_WORKER_DIR",
                self.sandbox.directory.name,
                self._halted_by,
                error,
            )
        if self.sandbox.launcher is not None:
            await self.sandbox.launcher.halt(self._files)

    def _requested_end(self) -> ev.EndedBy:
        """Return why this or a previous process halted the run, or ``ITSELF``."""
        stored = self._files.read_ended_by()
        return self._halted_by if stored is ev.EndedBy.ITSELF else stored


def _program_ran(message: LauncherMessage) -> bool:
    """Return whether the program was run at all."""
    return isinstance(message, ProgramStarted) or not message.error
