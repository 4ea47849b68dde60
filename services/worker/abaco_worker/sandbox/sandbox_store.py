"""The sandbox store: makes, finds, assigns and discards the sandboxes of one host.

Starting a container takes hundreds of milliseconds, so a sandbox is made before there is a
message. It runs one execution, and is then removed with its directory. The directory survives a
crash: from it a restarted worker knows what the sandbox was made from, and its assignment.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from uuid import uuid4
from weakref import WeakSet

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import CannotStart, EngineFault
from abaco_worker.domain.engine_values import Image, LauncherMounts
from abaco_worker.domain.sandbox_record import SandboxAssignment, SandboxRecord
from abaco_worker.domain.sandbox_spec import SandboxSpec, WorkerKey, sandbox_container_spec
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import ImageStore
from abaco_worker.network.bridge_network import BridgeNetwork, BridgeTemplate
from abaco_worker.sandbox.container_garbage_collector import (
    ContainerGarbageCollector,
    UnusedContainer,
)
from abaco_worker.sandbox.helper_client import Helper
from abaco_worker.sandbox.sandbox import ANSWER_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.sandbox.start_limiter import StartLimiter


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
        measure: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``program`` is the launcher. ``measure`` is entered while a sandbox is made.

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
        self._assigned: dict[str, SandboxDirectory] = {}
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
            if assignment := directory.read_assignment():
                self._assigned[assignment.key] = directory

    @property
    def launcher(self) -> str:
        """The file name of the launcher's program; each version has its own."""
        return self._program.name

    def usable(self, directory: SandboxDirectory, record: SandboxRecord) -> bool:
        """Return whether a found sandbox is complete and has a launcher of this version."""
        attached = not directory.hosts.exists() or directory.read_address() is not None
        return record.launcher == self.launcher and attached

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
            directory = self.directory(f"abaco-{key.worker_id}-{uuid4().hex[:12]}")
            template = self._network.template()
            try:
                directory.create()
                record = await self._create_container(
                    host_id, key, spec, image, directory, template=template
                )
                sandbox = Sandbox(directory, record)
                directory.write_record(record)
                await self._start(sandbox, template)
            except BaseException:
                self._garbage_collector.collect(UnusedContainer(directory.name, directory.path))
                raise
            self._connected.add(sandbox)
            return sandbox

    def detach(self) -> None:
        """Leave the sandboxes running without a connection: the next process adopts them."""
        self._helper.close()
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
    ) -> SandboxRecord:
        container_spec = sandbox_container_spec(
            directory.name,
            host_id,
            key,
            spec,
            image_id=image.image_id,
            mounts=LauncherMounts(program=str(self._program)),
            network_files=None if template is None else template.write_files(directory),
        )
        container = await self._engine.create(container_spec)
        return SandboxRecord(
            container_id=container.container_id,
            launcher=self.launcher,
            image=image,
            spec=spec,
        )

    async def _start(self, sandbox: Sandbox, template: BridgeTemplate | None) -> None:
        """Start the container and its launcher, and attach the container to the network."""
        try:
            await self._start_container(sandbox)
            await self._start_launcher(sandbox)
            await self._attach_network(sandbox, template)
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
        container_id, directory = sandbox.record.container_id, sandbox.directory
        container = await self._engine.inspect(container_id)
        process = await self._helper.start(container_id, container.pid, directory.name)
        directory.write_launcher(process)
        try:
            await sandbox.connect(ANSWER_SECONDS)
        except Unavailable as error:
            where = f"the engine must see {self.folder} under this path: ABACO_WORKER_DIR"
            raise EngineFault(f"{error} ({where})") from error

    async def _attach_network(self, sandbox: Sandbox, template: BridgeTemplate | None) -> None:
        """Attach the container by the template, or learn the template from the engine."""
        container_id, launcher = sandbox.record.container_id, sandbox.launcher
        assert launcher is not None
        if template is None:
            await self._network.learn_template(container_id, launcher)
        else:
            await self._network.attach(template, container_id, launcher, sandbox.directory)

    def assign(self, sandbox: Sandbox, assignment: SandboxAssignment) -> None:
        """Store the assignment that a sandbox is used for. It is never used for another one."""
        sandbox.directory.write_assignment(assignment)
        self._assigned[assignment.key] = sandbox.directory

    def assigned(self, assignment_key: str) -> SandboxDirectory | None:
        """Return the directory of the sandbox that an assignment uses."""
        return self._assigned.get(assignment_key)

    def discard(self, sandbox: Sandbox) -> None:
        """Remove a sandbox, used or not."""
        sandbox.close()
        self._garbage_collector.collect(sandbox.unused_container)

    def release(self, assignment_key: str) -> UnusedContainer | None:
        """Forget an assignment that is over, and return what is to be removed of it."""
        directory = self._assigned.pop(assignment_key, None)
        return None if directory is None else UnusedContainer(directory.name, directory.path)
