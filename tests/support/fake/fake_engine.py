"""An in-memory container engine; it passes the same contract suite as the real one.

Its images read a :class:`Program` as JSON from ``$MSG``. A container with a launcher is a real
launcher, as a plain process; there ``$MSG`` is a shell script.
"""

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
from msgspec.structs import replace

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import (
    CannotStart,
    ContainerMissing,
    EngineFault,
    ImageMissing,
    ImageRefused,
)
from abaco_worker.domain.engine_values import (
    BridgeEndpoint,
    Container,
    ContainerSpec,
    Image,
    LabelledContainer,
    PullProgress,
    ResourceUsage,
)
from abaco_worker.sandbox.helper_client import HelperCommand
from abaco_worker.sandbox.launcher_client import process_start_ticks
from abaco_worker.sandbox.sandbox_directory import ProcessIdentity

IMAGE = "test/image"
UNSTARTABLE = "test/unstartable"
ME = f"{os.getuid()}:{os.getgid()}" if os.getuid() else ""
STARTED_AT = "2026-01-02T03:04:06.000000001Z"
FINISHED_AT = "2026-01-02T03:04:08.000000001Z"


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What a container does: print ``prints``, ``lines`` numbers and a variable, and then exit."""

    prints: str = ""
    lines: int = 0
    echoes: str = ""
    exit_code: int = 0
    forever: bool = False


def message(program: Program) -> str:
    """Return a program as the fake engine's images read it."""
    return msgspec.json.encode(program).decode()


class FakeContainer:
    """One container of the fake engine."""

    def __init__(self, number: int, spec: ContainerSpec, image_id: str) -> None:
        self.spec = spec
        self.program = msgspec.json.decode(spec.environment.get("MSG") or "{}", type=Program)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.ended = asyncio.Event()
        self.written = 0
        self.state = Container(
            container_id=f"c{number}", image_id=image_id, labels=dict(spec.labels)
        )

    @property
    def output(self) -> bytes:
        if not self.starts:
            return b""
        program, environment = self.program, self.spec.environment
        counted = "".join(f"{n}\n" for n in range(1, program.lines + 1))
        return (program.prints + counted + environment.get(program.echoes, "")).encode()

    def start(self) -> None:
        self.starts += 1
        self.state = replace(self.state, status="running", started_at=STARTED_AT)
        if self.spec.launcher is not None:
            return
        if not self.program.forever:
            self.end(self.program.exit_code)

    def launch(self, folder: Path, *, stays: bool) -> int:
        """Start the launcher beside it, and return its process."""
        assert self.spec.launcher is not None
        self.process = subprocess.Popen(
            [self.spec.launcher.program, "./socket", *(["again"] if stays else [])],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        return self.process.pid

    def end(self, exit_code: int) -> None:
        self.state = replace(
            self.state, status="exited", exit_code=exit_code, finished_at=FINISHED_AT
        )
        self.ended.set()

    async def over(self) -> None:
        """Wait until it exits; it exits with its launcher."""
        while self.process is not None and not self.ended.is_set():
            if self.process.poll() is not None:
                self.end(self.process.returncode)
            await asyncio.sleep(0.001)
        await self.ended.wait()

    def kill(self) -> None:
        """Kill the launcher and its program; no report is written."""
        if self.process is not None and self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for child in children:
                with suppress(psutil.NoSuchProcess):  # it has exited
                    child.kill()


class FakeHelper:
    """Implements ``Helper`` for the containers of a fake engine."""

    def __init__(
        self, engine: "FakeEngine", folder: Path, *, refuses_sandboxes: bool = False
    ) -> None:
        self._engine = engine
        self._folder = folder
        self.refuses_sandboxes = refuses_sandboxes

    async def start(
        self, command: HelperCommand, container_id: str, pid: int, name: str
    ) -> ProcessIdentity:
        stays = command != "start"
        await asyncio.sleep(0)
        container = self._engine.containers.get(container_id)
        if container is None:
            raise EngineFault("it went away")
        if stays and self.refuses_sandboxes:
            raise EngineFault("no sandboxes here")
        pid = container.launch(self._folder / name / "run", stays=stays)
        return ProcessIdentity(pid=pid, started=process_start_ticks(pid))

    def close(self) -> None:
        """There is nothing to close."""


class FakeEngine:
    """Implements ``Engine``; with ``available = False`` every call raises ``Unavailable``."""

    location = "fake://engine"

    def __init__(self) -> None:
        self.available = True
        self.images = {
            IMAGE: Image(
                image_id="sha256:1",
                digest="sha256:d1",
                command=("/bin/sh", "-c", 'eval "$MSG"'),
                user=ME,
                environment={"PATH": "/usr/bin:/bin"},
            ),
            UNSTARTABLE: Image(image_id="sha256:2", digest="sha256:d2"),
        }
        self.registry: dict[str, Image] = {}
        self.pulls: list[str] = []
        self.let_pull = asyncio.Event()
        self.let_pull.set()
        self.let_start = asyncio.Event()
        self.let_start.set()
        self.containers: dict[str, FakeContainer] = {}
        self.starts: list[str] = []
        self.faults: list[EngineFault] = []
        self.swallows = 0
        self.connected: BridgeEndpoint | None = None
        self._numbers = itertools.count()

    async def confinements(self) -> frozenset[str]:
        await self._check()
        return frozenset({"seccomp"})

    async def find_image(self, image: str) -> Image:
        await self._check()
        if " " in image:
            raise ImageRefused(f"image {image}: invalid reference format")
        return self._image(image)

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        await self._check()
        self.pulls.append(image)
        await self.let_pull.wait()
        if image not in self.registry:
            raise ImageRefused(f"image {image}: pull failed: no such host")
        progress(PullProgress(done_layers=1, layers=1, done_bytes=1, total_bytes=1))
        self.images[image] = self.registry[image]

    async def image_changes(self) -> AsyncGenerator[None, None]:
        await self._check()
        yield None
        seen = dict(self.images)
        while True:
            await self._check()
            if self.images != seen:
                seen = dict(self.images)
                yield None
            await asyncio.sleep(0.001)

    async def create(self, spec: ContainerSpec) -> Container:
        await self._check()
        for container in self.containers.values():
            if container.spec.name == spec.name:
                return container.state
        image = self._image(spec.image)
        made = FakeContainer(next(self._numbers), spec, image.image_id)
        self.containers[made.state.container_id] = made
        return made.state

    async def start(self, container_id: str) -> None:
        await self._check()
        container = self._find(container_id)
        await self.let_start.wait()
        if self.faults:
            raise self.faults.pop()
        if container.state.image_id == self.images[UNSTARTABLE].image_id:
            raise CannotStart("exec: /nope: no such file", exit_code=127)
        self.starts.append(container.spec.name)
        container.start()

    async def inspect(self, container_id: str) -> Container:
        await self._check()
        return self._find(container_id).state

    async def wait(self, container_id: str, seconds: float) -> Container:
        await self._check()
        container = self._find(container_id)
        try:
            await asyncio.wait_for(container.over(), seconds)
        except TimeoutError:
            return container.state
        return self._find(container_id).state

    async def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """``swallows`` is how many bytes a follower misses at the end, as with a real engine."""
        await self._check()
        container = self._find(container_id)
        data = container.output
        if follow:
            data = data[: len(data) - self.swallows]
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]
            await asyncio.sleep(0)
        if follow:
            await container.ended.wait()

    async def endpoint(self, container_id: str) -> BridgeEndpoint | None:
        await self._check()
        self._find(container_id)
        return self.connected

    async def usage(self, container_id: str) -> ResourceUsage:
        await self._check()
        running = self._find(container_id).state.status == "running"
        return ResourceUsage(cpu_ns=1_000_000, io_bytes=10) if running else ResourceUsage()

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        await self._check()
        container = self._find(container_id)
        if not container.ended.is_set():
            container.end(143)

    async def written(self, container_id: str) -> int:
        await self._check()
        return self._find(container_id).written

    async def remove(self, container_id: str, *, exit_seconds: float = 0.0) -> None:
        await self._check()
        if exit_seconds > 0:
            with suppress(ContainerMissing):
                await self.wait(container_id, exit_seconds)
        for key, container in list(self.containers.items()):
            if container_id in (key, container.spec.name):
                del self.containers[key]
                container.kill()
                container.end(137)

    async def labelled(self, label: str, value: str) -> Sequence[LabelledContainer]:
        await self._check()
        return [
            LabelledContainer(
                container_id=key, name=container.spec.name, labels=container.state.labels
            )
            for key, container in self.containers.items()
            if container.state.labels.get(label) == value
        ]

    async def _check(self) -> None:
        await asyncio.sleep(0)
        if not self.available:
            raise Unavailable("the fake engine is unavailable")

    def _image(self, image: str) -> Image:
        by_id = {found.image_id: found for found in self.images.values()}
        if image not in self.images | by_id:
            raise ImageMissing(image)
        return (self.images | by_id)[image]

    def _find(self, container_id: str) -> FakeContainer:
        for key, container in self.containers.items():
            if container_id in (key, container.spec.name):
                return container
        raise ContainerMissing(container_id)
