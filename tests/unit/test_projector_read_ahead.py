"""Reading ahead: items at once, and debounced items with the next one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

import builders as b
from abaco_projector.app import projection
from abaco_projector.app.projection import read_ahead
from deadlines import LIMIT_SECONDS

DEBOUNCED = "debounced"


class Source:
    """Yields what is put into it, until it is closed."""

    def __init__(self) -> None:
        self.put: asyncio.Queue[Sequence[Any] | None] = asyncio.Queue()

    async def batches(self) -> AsyncGenerator[Sequence[Any], None]:
        while (batch := await self.put.get()) is not None:
            yield batch


def is_debounced(item: Any) -> bool:
    return str(item).startswith(DEBOUNCED)


async def taken(batches: AsyncGenerator[Sequence[Any], None]) -> Sequence[Any]:
    """The next batch that holds something."""
    async with asyncio.timeout(LIMIT_SECONDS):
        async for batch in batches:
            if batch:
                return batch
    raise AssertionError("it ended")


@pytest.fixture
def long_debounce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "DEBOUNCE_SECONDS", 1000.0)


@pytest.mark.usefixtures("long_debounce")
async def test_a_debounced_item_comes_with_the_next_urgent_one() -> None:
    source = Source()
    batches = read_ahead(source.batches(), 10, is_debounced)
    source.put.put_nowait(["debounced 1"])
    source.put.put_nowait(["debounced 2", "urgent"])
    assert await taken(batches) == ["debounced 1", "debounced 2", "urgent"]
    source.put.put_nowait(["debounced 3"])
    waiting = asyncio.ensure_future(taken(batches))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    source.put.put_nowait(["also urgent"])
    assert await waiting == ["debounced 3", "also urgent"]
    await batches.aclose()


@pytest.mark.usefixtures("long_debounce")
async def test_the_rest_of_a_large_batch_is_not_debounced() -> None:
    """Only a debounced item may be left over; it came with urgent ones."""
    source = Source()
    batches = read_ahead(source.batches(), 2, is_debounced)
    source.put.put_nowait(["urgent", "2", "3", "4", "debounced"])
    assert [await taken(batches) for _ in range(3)] == [["urgent", "2"], ["3", "4"], ["debounced"]]
    await batches.aclose()


@pytest.mark.usefixtures("long_debounce")
async def test_the_end_of_the_stream_is_not_debounced() -> None:
    source = Source()
    source.put.put_nowait(["debounced"])
    source.put.put_nowait(None)
    found = [batch async for batch in read_ahead(source.batches(), 10, is_debounced) if batch]
    assert found == [["debounced"]]


async def test_debouncing_has_a_limit() -> None:
    source = Source()
    batches = read_ahead(source.batches(), 10, is_debounced)
    source.put.put_nowait(["debounced"])
    assert await taken(batches) == ["debounced"]
    await batches.aclose()


async def test_a_batch_of_large_messages_is_bounded_by_their_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projection, "MAX_BATCH_BYTES", 1000)
    events = [b.record(b.received(n, message="x" * 150), n + 1) for n in range(9)]
    huge = b.record(b.received(9, message="x" * 5000), 10)
    source = Source()
    batches = read_ahead(source.batches(), 100)
    for recorded in (*events, huge):
        source.put.put_nowait([recorded])
    first = await taken(batches)
    assert 1 <= len(first) <= 4
    found = [*first]
    while len(found) < 10:
        await asyncio.sleep(0)
        batch = await taken(batches)
        assert len(batch) == 1 or sum(len(recorded.raw) for recorded in batch) <= 1000
        found += batch
    assert found == [*events, huge]
    waiting = source.put.qsize()
    for n in range(100):
        source.put.put_nowait([b.record(b.received(n, message="x" * 150), n + 11)])
    await taken(batches)
    for _ in range(300):
        await asyncio.sleep(0)
    assert source.put.qsize() > waiting + 80, "what is read ahead is bounded, too"
    await batches.aclose()
