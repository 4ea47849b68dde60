"""The worker loop with fakes, and the scheduler's events, for unit tests."""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import builders as b
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_telemetry.context import NO_SPANS, Spans
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.worker_loop import WorkerLoop
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.engine.image_store import ImageStore
from abaco_worker.network.bridge_network import BridgeNetwork
from abaco_worker.runs.disk_limit import DiskMonitor
from abaco_worker.runs.run_spec_reader import RunSpecReader
from abaco_worker.sandbox.container_garbage_collector import ContainerGarbageCollector
from abaco_worker.sandbox.sandbox_store import SandboxStore
from abaco_worker.worker_settings import WorkerSettings
from fake_engine import IMAGE, FakeEngine, FakeHelper, Program, message
from fake_kernel import FakeKernel
from fakes import InMemoryEventLog, InMemoryHeartbeats, InMemoryOutputLog, InMemoryWorkQueue
from launcher_stage import program

SECONDS = 10.0

Gate = Callable[[], Awaitable[None]]


async def open_gate() -> None:
    """A gate that never blocks."""


class Gated:
    """A port whose calls pass a gate before and after."""

    def __init__(self, target: Any, gate: Gate) -> None:
        self._target = target
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._gate()
            result = await attribute(*args, **kwargs)
            await self._gate()
            return result

        return call


class Stage:
    """The environment of the host h1; it outlives the worker loops that run in it.

    With a ``folder``, there is a launcher, and workers have sandboxes.
    """

    def __init__(self, *, folder: Path | None = None, **settings: Any) -> None:
        self.folder = folder
        self.config = WorkerSettings(**{"heartbeat_seconds": 0.01, **settings})
        self.log = InMemoryEventLog()
        self.outputs = InMemoryOutputLog()
        self.engine = FakeEngine()
        self.kernel = FakeKernel()
        self.queue = InMemoryWorkQueue(self.log, "h1")
        self.heartbeats = InMemoryHeartbeats()
        self.metrics = WorkerMetrics()
        self.spans: Spans = NO_SPANS
        self.running: WorkerLoop | None = None
        self.refuses_sandboxes = False

    def host(self, gate: Gate = open_gate) -> HostContext:
        engine: Any = Gated(self.engine, gate)
        log: Any = Gated(self.log, gate)
        outputs: Any = Gated(self.outputs, gate)
        images, garbage_collector = (
            ImageStore(engine, self.config.pull_policy),
            ContainerGarbageCollector(engine),
        )
        return HostContext(
            host_id="h1",
            capacity=4,
            config=self.config,
            log=log,
            outputs=outputs,
            engine=engine,
            images=images,
            garbage_collector=garbage_collector,
            run_specs=RunSpecReader(log),
            disks=DiskMonitor(engine),
            sandboxes=self.sandboxes(engine, images, garbage_collector),
            metrics=self.metrics,
            spans=self.spans,
        )

    def sandboxes(
        self, engine: Any, images: ImageStore, garbage_collector: ContainerGarbageCollector
    ) -> SandboxStore | None:
        if self.folder is None:
            return None
        return SandboxStore(
            engine,
            images,
            garbage_collector,
            BridgeNetwork(
                engine,
                self.kernel,
                engine_only="" if self.engine.connected else "the fake engine attaches nothing",
            ),
            FakeHelper(self.engine, self.folder, refuses_sandboxes=self.refuses_sandboxes),
            folder=self.folder,
            program=program(),
            max_starts=2,
        )

    @asynccontextmanager
    async def service(self, gate: Gate = open_gate) -> AsyncGenerator[WorkerLoop, None]:
        """Run a worker loop in the block; it is cancelled at the end, as by a crash."""
        service = WorkerLoop(self.host(gate), self.queue, self.heartbeats)
        running = asyncio.create_task(service.run())
        self.running = service
        try:
            yield service
            assert not running.done(), running.exception()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            self.running = None
            await self._end_background()

    def idle_sandboxes(self) -> int:
        """Return how many workers of the running loop have a connected idle sandbox."""
        workers = [] if self.running is None else self.running._workers.values()
        return sum(worker.pool.idle is not None for worker in workers)

    @staticmethod
    async def _end_background() -> None:
        """Cancel the loop's background tasks, which would end with its process."""
        background = [
            task
            for task in asyncio.all_tasks()
            if getattr(task.get_coro(), "__qualname__", "") == "SandboxStore.make"
        ]
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    def kill(self) -> None:
        """Kill all launchers that are left."""
        for container in self.engine.containers.values():
            container.kill()

    async def append(self, event: ev.Event) -> int:
        return await self.log.append(b.envelope_of(event))

    async def register(self, **definition: Any) -> int:
        return await self.append(b.registered(**{"image": IMAGE, **definition}))

    async def request(self, number: int = 0) -> None:
        await self.append(b.requested(number))

    async def send(self, ordinal: int = 0, program: Program | None = None, **changes: Any) -> int:
        words = message(program or Program())
        return await self.append(b.received(ordinal, message=words, **changes))

    async def assign(self, ordinal: int = 0, **changes: Any) -> Recorded:
        [sequence] = [
            r.sequence
            for r in self.log.events
            if isinstance(r.event, ev.MessageReceived) and r.event.ordinal == ordinal
        ]
        states = [
            r.sequence
            for r in self.log.events
            if isinstance(r.event, ev.ActorStateSet) and r.event.actor_id == "foo_0"
        ]
        placed = {"message_sequence": sequence, "state_sequence": (states or [0])[-1]}
        event = b.assigned(ordinal, **{**placed, **changes})
        return self.log.events[await self.append(event) - 1]

    def seen(self, kind: type[ev.Event]) -> list[Any]:
        return self.log.bodies(kind)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, with a deadline."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log.bodies()
            await asyncio.sleep(0.001)

    async def until_seen(self, kind: type[ev.Event], count: int = 1) -> list[Any]:
        await self.until(lambda: len(self.seen(kind)) >= count)
        return self.seen(kind)

    async def until_idle(self) -> None:
        """Wait until all work items are acknowledged and no container is left."""
        await self.until(
            lambda: (
                all(d.recorded.sequence in self.queue.settled for d in self.queue.handed_out)
                and not self.engine.containers
            )
        )

    def output(self, execution_id: str, attempt: int = 1) -> bytes:
        """Return an attempt's output as a reader assembles it."""
        whole = bytearray()
        for chunk in self.outputs.chunks:
            out = chunk.output
            if (out.execution_id, out.attempt) == (execution_id, attempt):
                assert out.offset <= len(whole), "a gap"
                whole[out.offset : out.offset + len(out.data)] = out.data
        return bytes(whole)
