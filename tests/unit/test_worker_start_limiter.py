import asyncio
from contextlib import AsyncExitStack

from abaco_worker.sandbox.start_limiter import MAX_BACKLOG, StartLimiter


class Yard:
    """Starts that the limiter admits, and the number of containers that wait for removal."""

    def __init__(self, at_once: int) -> None:
        self.backlog = 0
        self.starts = StartLimiter(at_once, lambda: self.backlog)
        self.under_way: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._ends: dict[int, asyncio.Event] = {}

    async def start(self, *numbers: int) -> None:
        for number in numbers:
            self._ends[number] = asyncio.Event()
            self.tasks.append(asyncio.create_task(self._start(number)))
        await self._quiet()

    async def end(self, number: int) -> None:
        self._ends[number].set()
        await self._quiet()

    async def _start(self, number: int) -> None:
        async with self.starts.admitted():
            self.under_way.append(number)
            try:
                await self._ends[number].wait()
            finally:
                self.under_way.remove(number)

    async def _quiet(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_as_many_at_once_as_were_said_in_the_order_they_came() -> None:
    yard = Yard(3)
    await yard.start(1, 2, 3, 4, 5)
    assert yard.under_way == [1, 2, 3]
    await yard.end(2)
    assert yard.under_way == [1, 3, 4]


async def test_while_removals_are_behind_two_are_enough() -> None:
    yard = Yard(4)
    yard.backlog = MAX_BACKLOG + 1
    await yard.start(1, 2, 3, 4, 5)
    assert yard.under_way == [1, 2]
    await yard.end(1)
    assert yard.under_way == [2, 3]
    yard.backlog = MAX_BACKLOG
    await yard.end(2)
    assert yard.under_way == [3, 4, 5]


async def test_one_at_a_time_stays_one() -> None:
    yard = Yard(1)
    yard.backlog = MAX_BACKLOG + 1
    await yard.start(1, 2)
    assert yard.under_way == [1]


async def test_who_does_not_wait_any_more_takes_no_turn() -> None:
    yard = Yard(1)
    await yard.start(1, 2, 3)
    yard.tasks[1].cancel()
    await yard.end(1)
    assert yard.under_way == [3]


async def test_a_turn_that_comes_too_late_is_given_back() -> None:
    yard = Yard(1)
    async with AsyncExitStack() as first:
        await first.enter_async_context(yard.starts.admitted())
        await yard.start(1, 2)
    yard.tasks[0].cancel()  # it is admitted, and its task has not run yet
    await yard.end(1)
    assert yard.under_way == [2]


async def test_a_start_that_fails_gives_its_turn_back() -> None:
    yard = Yard(1)
    await yard.start(1, 2)
    yard.tasks[0].cancel()
    await yard.end(1)
    assert yard.under_way == [2]
