"""Sandboxes made, found again and thrown away: containers beside which a launcher waits.

Theory: a container's start costs hundreds of milliseconds, so it happens before there is a
message. One sandbox runs one execution, and is then removed with its folder. The folder is what a
crash cannot take: a worker that comes back finds in it what a sandbox was made from and taken for.
"""

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from uuid import uuid4
from weakref import WeakSet

from abaco_proto.errors import Unavailable
from abaco_worker.domain.containers import Image, LauncherMounts
from abaco_worker.domain.engine_errors import CannotStart, EngineFault
from abaco_worker.domain.sandbox_record import Made, Taken
from abaco_worker.domain.sandbox_spec import Blueprint, SeatKey, sandbox_spec
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import Images
from abaco_worker.network.bridge_network import Network, Pattern
from abaco_worker.sandbox.container_garbage_collector import Leftover, Sweeper
from abaco_worker.sandbox.helper_client import Helper
from abaco_worker.sandbox.sandbox import ANSWER_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import Place
from abaco_worker.sandbox.start_limiter import Starts

logger = logging.getLogger(__name__)


class Sandboxes:
    """All sandboxes of one host, each in a folder of its own below ``folder``."""

    def __init__(  # noqa: PLR0913 - the ports of a host
        self,
        engine: Engine,
        images: Images,
        sweeper: Sweeper,
        network: Network,
        helper: Helper,
        *,
        folder: Path,
        program: Path,
        starts_at_once: int,
        watched: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Nothing is touched before :meth:`open`; ``program`` is the launcher.

        ``watched`` is entered for every making of one.
        """
        self._engine = engine
        self._images = images
        self._sweeper = sweeper
        self._network = network
        self._helper = helper
        self.folder = folder
        self._program = program
        self._watched = watched
        self._starts = Starts(starts_at_once, lambda: sweeper.behind)
        self._taken: dict[str, Place] = {}
        self._connected: WeakSet[Sandbox] = WeakSet()
        self.found: list[Place] = []
        """The folders that an earlier life has left, living or not."""

    def open(self) -> None:
        """Make the folder ready, and read what an earlier life has left in it.

        The engine may run somewhere else with the same folder, so the launcher is copied there.
        """
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        copy = self.folder / self._program.name
        if not copy.exists():
            fresh = copy.with_suffix(f".{uuid4().hex[:8]}")
            shutil.copyfile(self._program, fresh)
            fresh.chmod(0o755)
            fresh.replace(copy)
        self._program = copy
        self.found = [Place(path) for path in sorted(self.folder.iterdir()) if path.is_dir()]
        for place in self.found:
            if taken := place.taken():
                self._taken[taken.mark] = place

    @property
    def launcher(self) -> str:
        """The name of the launcher's program, which is another one for each of its versions."""
        return self._program.name

    def usable(self, place: Place, made: Made) -> bool:
        """Whether a sandbox that was found is whole, and its launcher ours."""
        connected = not place.hosts.exists() or place.address() is not None
        return made.launcher == self._program.name and connected

    def place(self, name: str) -> Place:
        """The folder of a sandbox, by its container's name; it may not be there."""
        return Place(self.folder / name)

    async def make(self, host_id: str, key: SeatKey, drawn: Blueprint) -> Sandbox:
        """A sandbox that waits.

        Raises:
            ImageRefused: the image cannot be had.
            EngineFault, Unavailable: the engine fails or is away; trying again may help.
        """
        with self._watched():
            return await self._make(host_id, key, drawn)

    async def _make(self, host_id: str, key: SeatKey, drawn: Blueprint) -> Sandbox:
        image = await self._images.recent(drawn.image)
        place = self.place(f"abaco-{key.worker_id}-{uuid4().hex[:12]}")
        pattern = self._network.pattern()
        try:
            place.make()
            made = await self._container(host_id, key, drawn, image, place, pattern=pattern)
            sandbox = Sandbox(place, made)
            place.make_known(made)
            await self._get_ready(sandbox, pattern)
        except BaseException:
            self._sweeper.take(Leftover(place.folder.name, place.folder))
            raise
        self._connected.add(sandbox)
        return sandbox

    def let_go(self) -> None:
        """The service ends: what waits stays as it is, to be found again."""
        self._helper.close()
        for sandbox in self._connected:
            sandbox.close()

    async def _container(  # noqa: PLR0913 - all that a container is made from
        self,
        host_id: str,
        key: SeatKey,
        drawn: Blueprint,
        image: Image,
        place: Place,
        *,
        pattern: Pattern | None,
    ) -> Made:
        mounts = LauncherMounts(program=str(self._program))
        spec = sandbox_spec(
            place.folder.name,
            host_id,
            key,
            drawn,
            image_id=image.image_id,
            mounts=mounts,
            network_files=None if pattern is None else pattern.files(place),
        )
        container = await self._engine.create(spec)
        return Made(
            container_id=container.container_id,
            launcher=self._program.name,
            image=image,
            blueprint=drawn,
        )

    async def _get_ready(self, sandbox: Sandbox, pattern: Pattern | None) -> None:
        try:
            await self._start(sandbox)
            await self._connect(sandbox, pattern)
        except BaseException:
            sandbox.close()
            raise

    async def _start(self, sandbox: Sandbox) -> None:
        container_id, place = sandbox.made.container_id, sandbox.place
        try:
            async with self._starts.turn():
                await self._engine.start(container_id)
        except CannotStart as error:
            raise EngineFault(f"the launcher cannot be started: {error}") from error
        container = await self._engine.inspect(container_id)
        place.expect(await self._helper.start(container_id, container.pid, place.name))
        try:
            await sandbox.connect(ANSWER_SECONDS)
        except Unavailable as error:
            where = f"the engine must see {self.folder} under this path: ABACO_WORKER_DIR"
            raise EngineFault(f"{error} ({where})") from error

    async def _connect(self, sandbox: Sandbox, pattern: Pattern | None) -> None:
        """See to its network, or learn from the engine how."""
        container_id, launcher = sandbox.made.container_id, sandbox.launcher
        assert launcher is not None
        if pattern is None:
            await self._network.learn(container_id, launcher)
        else:
            await self._network.connect(pattern, container_id, launcher, sandbox.place)

    def take(self, sandbox: Sandbox, taken: Taken) -> None:
        """Use a sandbox for an assignment: from here on for nothing else, whatever happens."""
        sandbox.place.take(taken)
        self._taken[taken.mark] = sandbox.place

    def taken_for(self, mark: str) -> Place | None:
        """The folder of the sandbox that was taken for an assignment."""
        return self._taken.get(mark)

    def discard(self, sandbox: Sandbox) -> None:
        """Throw a sandbox away, used or not."""
        sandbox.close()
        self._sweeper.take(sandbox.leftover)

    def forget(self, mark: str) -> Leftover | None:
        """What is to be removed of an assignment that is over."""
        place = self._taken.pop(mark, None)
        return None if place is None else Leftover(place.folder.name, place.folder)
