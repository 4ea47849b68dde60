"""Processes of the api over one log in memory, that can be stopped at each step."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal, TypeVar

import httpx

from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import assemble
from abaco_api.http.application import create_app
from abaco_proto.envelope import Draft, Expected, Recorded
from fakes import InMemoryEventLog, InMemoryOutputLog

T = TypeVar("T")

STEP_SECONDS = 0.01
CONFIG = ApiSettings(append_timeout_seconds=5, postgres_dsn="postgresql://abaco@127.0.0.1:9/none")
Side = Literal["before", "after"]


class Gate:
    """What every step of a process passes through; at one of them it can be held."""

    def __init__(self) -> None:
        self.steps = 0
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.delay: Callable[[], float] = lambda: 0.0
        self._stop: tuple[int, Side] | None = None

    def hold_at(self, step: int, side: Side) -> None:
        """Hold at the step-th step from now, with its effect still to come, or with it."""
        self._stop = (self.steps + step, side)

    async def passed(self, effect: Callable[[], Awaitable[T]]) -> T:
        self.steps += 1
        step = self.steps
        await asyncio.sleep(self.delay())
        await self._held(step, "before")
        result = await effect()
        await self._held(step, "after")
        return result

    async def _held(self, step: int, side: Side) -> None:
        if self._stop == (step, side):
            self.reached.set()
            await self.go_on.wait()


class GatedLog(InMemoryEventLog):
    """One process's way to a log."""

    def __init__(self, log: InMemoryEventLog, gate: Gate) -> None:
        super().__init__()
        self.events = log.events
        self._log = log
        self._gate = gate

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        return await self._gate.passed(lambda: self._log.append(draft, expected=expected))

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002
        return await self._gate.passed(lambda: self._log.last(filter))

    async def at(self, sequence: int) -> Recorded | None:
        return await self._gate.passed(lambda: self._log.at(sequence))

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        async def whole() -> list[Sequence[Recorded]]:
            batches = self._log.read(filters, after=after, since=since, headers_only=headers_only)
            return [batch async for batch in batches]

        for batch in await self._gate.passed(whole):
            yield batch

    def follow(self, filters: Sequence[str], *, after: int = 0):  # type: ignore[no-untyped-def] # noqa: ANN201
        return self._log.follow(filters, after=after)


class Process:
    """An api process without a socket."""

    def __init__(self, log: InMemoryEventLog, config: ApiSettings) -> None:
        self.gate = Gate()
        self.tenants = assemble(config, GatedLog(log, self.gate), InMemoryOutputLog())
        transport = httpx.ASGITransport(create_app(self.tenants))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30)

    async def post(self, path: str, key: str | None, **form: str) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post(path, data=form, headers=headers)


class World:
    """The log and the processes."""

    def __init__(self, count: int, config: ApiSettings) -> None:
        self.log = InMemoryEventLog()
        self.processes = [Process(self.log, config) for _ in range(count)]


@asynccontextmanager
async def world(count: int = 2, config: ApiSettings = CONFIG) -> AsyncGenerator[World, None]:
    """Processes that fold what is in the log, from here to the end of the block."""
    made = World(count, config)
    folds = [
        asyncio.create_task(run()) for process in made.processes for run in process.tenants.loops
    ]
    try:
        yield made
    finally:
        for fold in folds:
            fold.cancel()
        await asyncio.gather(*folds, return_exceptions=True)
        for process in made.processes:
            await process.http.aclose()
