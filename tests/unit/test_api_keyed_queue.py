"""Keyed queue: jobs run one after another, and none waits longer than need be."""

import asyncio
from contextvars import ContextVar

import pytest

from abaco_api.commands import command_handler
from abaco_api.commands.command_handler import KeyedQueue
from abaco_proto.errors import Conflict, Unavailable
from deadlines import LIMIT_SECONDS

SAID: ContextVar[str] = ContextVar("said", default="nothing")


class Counter:
    """Serves when it is let, and notes whom."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.let = asyncio.Semaphore(0)
        self.served: list[str] = []
        self.at_once = 0
        self.heard: list[str] = []
        self.queue = KeyedQueue(seconds)

    async def serve(self, key: str, job: str) -> str:
        self.at_once += 1
        assert key.startswith("busy") or self.at_once == 1
        self.served.append(job)
        self.heard.append(SAID.get())
        try:
            await self.let.acquire()
        finally:
            self.at_once -= 1
        if job == "refused":
            raise Conflict(job)
        if job == "away":
            raise Unavailable("the log is away")
        return job.upper()

    def enqueue(self, job: str, key: str = "line") -> "asyncio.Task[str]":
        return asyncio.create_task(self.queue.run(key, lambda: self.serve(key, job)))

    async def serve_all(self, *waiting: "asyncio.Task[str]") -> list[str | BaseException]:
        for _ in waiting:
            self.let.release()
        async with asyncio.timeout(LIMIT_SECONDS):
            return await asyncio.gather(*waiting, return_exceptions=True)


async def until_served(counter: Counter, count: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(counter.served) < count:
            await asyncio.sleep(0)


async def test_one_after_another_in_the_order_of_their_coming() -> None:
    counter = Counter()
    answers = await counter.serve_all(*(counter.enqueue(name) for name in "abcde"))
    assert answers == ["A", "B", "C", "D", "E"]
    assert counter.served == ["a", "b", "c", "d", "e"]


async def test_a_line_that_was_empty_begins_again() -> None:
    counter = Counter()
    for name in "ab":
        assert await counter.serve_all(counter.enqueue(name)) == [name.upper()]


async def test_lines_do_not_wait_for_one_another() -> None:
    counter = Counter()
    waiting = [counter.enqueue(f"{n}", key=f"busy {n}") for n in range(3)]
    await until_served(counter, 3)
    assert await counter.serve_all(*waiting) == ["0", "1", "2"]


async def test_what_is_refused_is_refused_to_who_asked_alone() -> None:
    counter = Counter()
    first, second = await counter.serve_all(counter.enqueue("refused"), counter.enqueue("b"))
    assert isinstance(first, Conflict)
    assert second == "B"


async def test_who_stands_behind_a_log_that_is_away_fails_with_the_one_in_front() -> None:
    counter = Counter()
    answers = await counter.serve_all(*(counter.enqueue(name) for name in ("away", "b", "c")))
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert counter.served == ["away"]


async def test_no_answer_in_time_is_the_same() -> None:
    counter = Counter(seconds=0.02)
    waiting = [counter.enqueue(name) for name in "ab"]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert "did not answer within 0.02 s" in str(answers[0])
    assert [type(answer) for answer in answers] == [Unavailable] * 2
    assert await counter.serve_all(counter.enqueue("c")) == ["C"]


async def test_who_waited_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_handler, "MAX_WAIT_SECONDS", 0.01)
    counter = Counter()
    first, second = counter.enqueue("a"), counter.enqueue("b")
    await until_served(counter, 1)
    await asyncio.sleep(0.02)
    answers = await counter.serve_all(first, second)
    assert answers[0] == "A"
    assert "too many requests wait for line" in str(answers[1])


async def test_who_has_gone_is_passed_over_and_who_is_served_is_served() -> None:
    counter = Counter()
    waiting = [counter.enqueue(name) for name in "abc"]
    await until_served(counter, 1)
    for gone in waiting[:2]:
        gone.cancel()
    answers = await counter.serve_all(*waiting)
    assert [type(answer) for answer in answers[:2]] == [asyncio.CancelledError] * 2
    assert answers[2] == "C"
    assert counter.served == ["a", "c"]


async def test_nothing_is_heard_of_whose_request_began_the_line() -> None:
    SAID.set("mine")
    counter = Counter()
    await counter.serve_all(counter.enqueue("a"), counter.enqueue("b"))
    assert counter.heard == ["nothing", "nothing"]
