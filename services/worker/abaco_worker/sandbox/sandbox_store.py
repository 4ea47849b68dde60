"""The sandbox store: makes, finds, assigns and discards the sandboxes of one host.

Starting a container takes hundreds of milliseconds, so it is made before there is a message. One
that stays runs one execution after another, each in a new sandbox. Any other runs one execution,
and is then removed with its directory. The directory survives a crash: from it a restarted worker
knows what the sandbox was made from, and its assignments.
"""

import asyncio
import logging
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from uuid import uuid4
from weakref import WeakSet

import msgspec

from abaco_proto.errors import Refused, Unavailable
from abaco_worker.domain.engine_errors import CannotStart, EngineFault
from abaco_worker.domain.engine_values import Image, LauncherMounts
from abaco_worker.domain.run_request import RunRequest
from abaco_worker.domain.sandbox_record import SandboxAssignment, SandboxRecord
from abaco_worker.domain.sandbox_spec import SandboxSpec, WorkerKey, sandbox_container_spec
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import ImageStore
from abaco_worker.network.bridge_network import BridgeNetwork, BridgeTemplate
from abaco_worker.sandbox.container_garbage_collector import (
    ContainerGarbageCollector,
    UnusedContainer,
)
from abaco_worker.sandbox.helper_client import Helper, HelperCommand
from abaco_worker.sandbox.sandbox import ANSWER_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import RunDirectory, SandboxDirectory
from abaco_worker.sandbox.start_limiter import StartLimiter

logger = logging.getLogger(__name__)

CHECK = "check"
"""The directory of the run that checks whether sandboxes can be made in a container."""

CHECK_PROGRAM = "/.abaco/none"
"""A program that does not exist, so that the check runs nothing of the image."""

REFUSED_SECONDS = 600.0
"""How long each message of an image gets a container of its own after no sandbox could be made."""

MAX_CHECKED = 1000
"""The number of images for which is known whether sandboxes can be made in their containers."""


MIN_KERNEL = (5, 12)
"""The first Linux whose mounts a launcher can attach to a sandbox."""


def sandbox_hindrance(kernel_release: str) -> str:
    """Return why no sandbox can be made on this kernel; empty if one may be possible."""
    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", kernel_release, re.ASCII)
    if version and (int(version[1]), int(version[2])) >= MIN_KERNEL:
        return ""
    return f"sandboxes need Linux {MIN_KERNEL[0]}.{MIN_KERNEL[1]}, and this is {kernel_release}"


class ImageCheck(msgspec.Struct, frozen=True):
    """Until when no sandboxes are made of an image (0: one was made), and why."""

    refused_until: float = 0.0
    reason: str = ""


class AssignedRun(msgspec.Struct, frozen=True):
    """Where an assignment is run. ``run`` is ``sandbox`` itself if the container is used once."""

    sandbox: SandboxDirectory
    run: RunDirectory


class SandboxesRefused(EngineFault):
    """No sandbox can be made in this container; one message can be run in it without."""


class SandboxStore:
    """All sandboxes of one host, each in its own directory below ``folder``."""

    def __init__(  # noqa: PLR0913 - the ports of a host
        self,
        engine: Engine,
        images: ImageStore,
        garbage_collector: ContainerGarbageCollector,
        network: BridgeNetwork,
        helper: Helper,
        *,
        folder: Path,
        program: Path,
        max_starts: int,
        hindrance: str = "",
        measure: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``program`` is the launcher. ``measure`` is entered while a sandbox is made.

        ``hindrance`` is why this host can make no sandboxes, or empty. Then no container stays.

        Call :meth:`open` before any other method.
        """
        self._engine = engine
        self._images = images
        self._garbage_collector = garbage_collector
        self._network = network
        self._helper = helper
        self.folder = folder
        self._program = program
        self._measure = measure
        self._start_limiter = StartLimiter(max_starts, lambda: garbage_collector.backlog)
        self._hindrance = hindrance
        self._checks: dict[str, ImageCheck] = {}
        self._learning = asyncio.Lock()
        self._assigned: dict[str, AssignedRun] = {}
        self._claimed: set[str] = set()
        self._remover = ThreadPoolExecutor(1, "remove-run")
        self._connected: WeakSet[Sandbox] = WeakSet()
        self.found: list[SandboxDirectory] = []
        """The directories that a previous process left, with or without a container."""

    def open(self) -> None:
        """Prepare the folder, and read what a previous process left in it.

        The launcher is copied to the folder, because the engine may be in another file system that
        shares only this folder.
        """
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        copy = self.folder / self._program.name
        if not copy.exists():
            new = copy.with_suffix(f".{uuid4().hex[:8]}")
            shutil.copyfile(self._program, new)
            new.chmod(0o755)
            new.replace(copy)
        self._program = copy
        paths = sorted(self.folder.iterdir())
        self.found = [SandboxDirectory(path) for path in paths if path.is_dir()]
        for directory in self.found:
            for run in directory.runs():
                if assignment := run.read_assignment():
                    self._assigned[assignment.key] = AssignedRun(directory, run)

    @property
    def launcher(self) -> str:
        """The file name of the launcher's program; each version has its own."""
        return self._program.name

    def usable(self, directory: SandboxDirectory, record: SandboxRecord) -> bool:
        """Return whether a found sandbox is complete and has a launcher of this version."""
        attached = not directory.hosts.exists() or directory.read_address() is not None
        return record.launcher == self.launcher and (record.connected or attached)

    def has_other_launcher(self, directory: SandboxDirectory) -> bool:
        """Return whether a found sandbox has a launcher of another version."""
        record = directory.read_record()
        return record is not None and record.launcher != self.launcher

    def directory(self, name: str) -> SandboxDirectory:
        """Return the directory of a container by its name; it need not exist."""
        return SandboxDirectory(self.folder / name)

    async def make(self, host_id: str, key: WorkerKey, spec: SandboxSpec) -> Sandbox:
        """Make an idle sandbox.

        Raises:
            ImageRefused: the image cannot be pulled or used.
            EngineFault, Unavailable: the engine fails or is unavailable; a retry may succeed.
        """
        with self._measure():
            image = await self._images.recent(spec.image)
            if spec.isolation == "sandbox" and not self.refusal(image.image_id):
                await self.learn_network(host_id, key, spec, image)
                try:
                    return await self._make(host_id, key, spec, image, stays=True)
                except SandboxesRefused as error:
                    refusal = error
                made = await self._make(host_id, key, spec, image, stays=False)
                self.note_refusal(made.record, refusal)
                return made
            return await self._make(host_id, key, spec, image, stays=False)

    async def learn_network(
        self, host_id: str, key: WorkerKey, spec: SandboxSpec, image: Image
    ) -> None:
        """Learn the template from a container that no message uses, if there is none.

        The messages of a container that the engine attached would share its network. Raises as
        :meth:`make`.
        """
        network = self._network
        # The next process must not take it for an idle sandbox of the worker.
        nobody = WorkerKey(key.tenant, key.actor_id, f"{key.worker_id}-network")
        async with self._learning:
            if not network.engine_reason and network.template() is None:
                self.discard(await self._make(host_id, nobody, spec, image, stays=False))

    def forget_network(self) -> None:
        """Learn anew how the engine attaches containers: it went away."""
        self._network.forget()

    def shared_network_reason(self) -> str:
        """Return why messages in containers that stay share a network; empty if they do not."""
        reason = self._network.engine_reason
        return f"a worker's messages share its container's network: {reason}" if reason else ""

    def reopen(self, directory: SandboxDirectory, record: SandboxRecord) -> Sandbox:
        """Return a sandbox that a previous process has made; it is not connected to."""
        return Sandbox(directory, record, self._network, adopted=True)

    def refusal(self, image_id: str) -> str:
        """Return why no container of this image stays now; empty if one does or may."""
        check = self._checks.get(image_id, ImageCheck())
        refused = time.monotonic() < check.refused_until
        return self._hindrance or (check.reason if refused else "")

    def note_refusal(self, record: SandboxRecord, refusal: Exception) -> None:
        """For some time, use each container of an image once: no sandbox can be made in it."""
        image = record.image
        if not self._checks.get(image.image_id, ImageCheck()).reason:
            logger.warning(
                "each message of image %s gets a container of its own, which takes longer: %s. See"
                " docs/explanation/launcher.md",
                record.spec.image,
                refusal,
            )
        check = ImageCheck(time.monotonic() + REFUSED_SECONDS, str(refusal))
        self._note_check(image, check)

    def _note_check(self, image: Image, check: ImageCheck) -> None:
        self._checks[image.image_id] = check
        while len(self._checks) > MAX_CHECKED:
            del self._checks[next(iter(self._checks))]

    async def _make(
        self, host_id: str, key: WorkerKey, spec: SandboxSpec, image: Image, *, stays: bool
    ) -> Sandbox:
        directory = self.directory(f"abaco-{key.worker_id}-{uuid4().hex[:12]}")
        template = self._network.template()
        try:
            directory.create()
            record = await self._create_container(
                host_id, key, spec, image, directory, template=template, stays=stays
            )
            sandbox = Sandbox(directory, record, self._network, adopted=False)
            directory.write_record(record)
            await self._start(sandbox, template)
        except BaseException:
            self._garbage_collector.collect(UnusedContainer(directory.name, directory.path))
            raise
        self.claim(sandbox)
        return sandbox

    def claim(self, sandbox: Sandbox) -> None:
        """Mark a sandbox as used by this process; it was made by it, or is adopted."""
        self._claimed.add(sandbox.directory.name)
        self._connected.add(sandbox)

    def is_claimed(self, directory: SandboxDirectory) -> bool:
        """Return whether this process uses a sandbox, for a run or as an idle one."""
        return directory.name in self._claimed

    def detach(self) -> None:
        """Leave the sandboxes running without a connection: the next process adopts them."""
        self._helper.close()
        self._remover.shutdown(wait=False)
        for sandbox in self._connected:
            sandbox.close()

    async def _create_container(  # noqa: PLR0913 - all that a container is made from
        self,
        host_id: str,
        key: WorkerKey,
        spec: SandboxSpec,
        image: Image,
        directory: SandboxDirectory,
        *,
        template: BridgeTemplate | None,
        stays: bool,
    ) -> SandboxRecord:
        container_spec = sandbox_container_spec(
            directory.name,
            host_id,
            key,
            spec,
            image_id=image.image_id,
            mounts=LauncherMounts(program=str(self._program)),
            network_files=None if template is None else template.write_files(directory),
            stays=stays,
        )
        container = await self._engine.create(container_spec)
        return SandboxRecord(
            container_id=container.container_id,
            launcher=self.launcher,
            image=image,
            spec=spec,
            stays=stays,
            connected=stays and template is not None,
        )

    async def _start(self, sandbox: Sandbox, template: BridgeTemplate | None) -> None:
        """Start the container and its launcher, and attach the container to the network."""
        try:
            await self._start_container(sandbox)
            await self._start_launcher(sandbox)
            await self._attach_network(sandbox, template)
            await self._check(sandbox)
        except BaseException:
            sandbox.close()
            raise

    async def _start_container(self, sandbox: Sandbox) -> None:
        try:
            async with self._start_limiter.admitted():
                await self._engine.start(sandbox.record.container_id)
        except CannotStart as error:
            raise EngineFault(f"the launcher cannot be started: {error}") from error

    async def _start_launcher(self, sandbox: Sandbox) -> None:
        record, directory = sandbox.record, sandbox.directory
        container = await self._engine.inspect(record.container_id)
        command = _helper_command(record)
        try:
            process = await self._helper.start(
                command, record.container_id, container.pid, directory.name
            )
        except EngineFault as error:
            raise (SandboxesRefused(str(error)) if record.stays else error) from error
        directory.write_launcher(process)
        try:
            await sandbox.connect(ANSWER_SECONDS)
        except Unavailable as error:
            where = f"the engine must see {self.folder} under this path: ABACO_WORKER_DIR"
            raise EngineFault(f"{error} ({where})") from error

    async def _attach_network(self, sandbox: Sandbox, template: BridgeTemplate | None) -> None:
        """Attach the container by the template, or learn the template from the engine.

        Where each message has a network of its own, attach the next one's.
        """
        container_id, launcher = sandbox.record.container_id, sandbox.launcher
        assert launcher is not None
        if sandbox.record.connected:
            await sandbox.attach_network()
        elif template is None:
            await self._network.learn_template(container_id, launcher)
        else:
            await self._network.attach(template, container_id, launcher, sandbox.directory)

    async def _check(self, sandbox: Sandbox) -> None:
        """Make a sandbox in a container that stays, if none was made of this image before.

        A launcher reports why it cannot make one only when there is a request.

        Raises:
            SandboxesRefused: it cannot.
            Unavailable: the launcher exited.
        """
        image, launcher = sandbox.record.image, sandbox.launcher
        if not sandbox.record.stays or self._checks.get(image.image_id) == ImageCheck():
            return
        assert launcher is not None
        run = sandbox.directory.run(CHECK, stays=True)
        await asyncio.to_thread(run.path.mkdir, 0o700, parents=True)
        limits = sandbox.message_limits
        request = RunRequest(argv=(CHECK_PROGRAM,), environment={}, output_bytes=0, sandbox=limits)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await launcher.launch(request, run)
                await launcher.wait_for_report(run)
                await sandbox.wait_idle()
        except (TimeoutError, Refused) as error:
            raise SandboxesRefused(str(error) or "the launcher did not make a sandbox") from error
        run.remove()
        self._note_check(image, ImageCheck())

    def assign(self, sandbox: Sandbox, assignment: SandboxAssignment) -> AssignedRun:
        """Store the assignment that a sandbox is used for. Only one that stays gets more.

        Raises:
            OSError: such as a full disk; the assignment is not stored.
        """
        directory = sandbox.directory
        run = directory.run(assignment.key, stays=sandbox.record.stays)
        try:
            run.begin(assignment)
        except BaseException:
            if run is not directory:
                run.remove()
            raise
        self._assigned[assignment.key] = AssignedRun(directory, run)
        return self._assigned[assignment.key]

    def assigned(self, assignment_key: str) -> AssignedRun | None:
        """Return where an assignment is run."""
        return self._assigned.get(assignment_key)

    def end_run(self, assignment_key: str) -> None:
        """Forget a run whose result is in the log, and whose container was given back.

        Its files are removed in a thread: the file system may wait for its journal. What a crash
        leaves is removed by the next process.
        """
        assigned = self._assigned.pop(assignment_key)
        self._remover.submit(assigned.run.remove)

    def discard(self, sandbox: Sandbox) -> None:
        """Remove a sandbox, used or not."""
        sandbox.close()
        self._claimed.discard(sandbox.directory.name)
        self._garbage_collector.collect(sandbox.unused_container)

    def remove_found(self, directory: SandboxDirectory, reason: str) -> None:
        """Remove a sandbox of a previous process, unless this one uses it already."""
        if not self.is_claimed(directory):
            logger.info("sandbox %s is removed: %s", directory.name, reason)
            self._garbage_collector.collect(UnusedContainer(directory.name, directory.path))

    def release(self, assignment_key: str) -> UnusedContainer | None:
        """Forget an assignment that is over, and return what is to be removed of it."""
        assigned = self._assigned.pop(assignment_key, None)
        if assigned is None:
            return None
        self._claimed.discard(assigned.sandbox.name)
        return UnusedContainer(assigned.sandbox.name, assigned.sandbox.path)


def _helper_command(record: SandboxRecord) -> HelperCommand:
    if not record.stays:
        return "start"
    return "connected" if record.connected else "sandbox"
