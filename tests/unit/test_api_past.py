"""Answers about the past: few at once, each with a deadline, none forgotten."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import pytest

import builders as b
from abaco_api.api_errors import TooMany
from abaco_api.as_of.as_of_parameter import PastFinder, Stores
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.full_fold import FullFold
from abaco_api.as_of.past_read_models import PastReadModels
from abaco_api.http.http_errors import answer_of
from abaco_api.queries.freshness import CheckpointPoller
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog

MOST = 3


class Held(InMemoryEventLog):
    """A log whose readers wait until they may go on; it counts those that read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.reading = self.most = 0

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            await self.go.wait()
            async with aclosing(super().read(filters, after=after)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.reading -= 1


@pytest.fixture
async def log() -> Held:
    held = Held()
    for event in (b.registered(), b.requested(), b.ready(), b.received(0)):
        await held.append(b.envelope_of(event))
    return held


def past_at(log: Held, seconds: float, slots: FoldSlots) -> PastReadModels:
    """The moment of the last event, without Postgres."""
    return PastReadModels(FullFold(log, "default", 4), None, seconds, slots)


async def reading(log: Held, count: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while log.reading < count:
            await asyncio.sleep(0)


async def test_few_histories_are_read_at_once_and_all_are_answered(log: Held) -> None:
    slots = FoldSlots(MOST, wait_seconds=LIMIT_SECONDS)
    past = past_at(log, LIMIT_SECONDS, slots)
    asked = [asyncio.create_task(past.workers("foo_0")) for _ in range(4 * MOST)]
    await reading(log, MOST)
    for _ in range(100):
        await asyncio.sleep(0)
    assert log.reading == MOST
    log.go.set()
    answers = await asyncio.wait_for(asyncio.gather(*asked), LIMIT_SECONDS)
    assert [len(found) for found in answers] == [1] * (4 * MOST)
    assert log.most == MOST


async def test_one_more_is_turned_away_when_none_ends_soon(log: Held) -> None:
    slots = FoldSlots(MOST, wait_seconds=0.05)
    past = past_at(log, 60, slots)
    asked = [asyncio.create_task(past.waiting("foo_0")) for _ in range(MOST)]
    await reading(log, MOST)
    with pytest.raises(TooMany) as caught:
        await past.waiting("foo_0")
    assert answer_of(caught.value) == (429, "too_many")
    asked[0].cancel()  # its client went away
    await asyncio.wait(asked[:1])
    log.go.set()
    assert await asyncio.wait_for(past.waiting("foo_0"), LIMIT_SECONDS) == 1
    assert await asyncio.gather(*asked[1:]) == [1] * (MOST - 1)


async def test_a_slot_is_free_again_after_the_deadline(log: Held) -> None:
    slots = FoldSlots(1, wait_seconds=LIMIT_SECONDS)
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"was not read within 0\.02 s"):
            await past_at(log, 0.02, slots).executions("foo_0", 10, 0)


async def test_a_time_behind_the_read_models_has_the_same_bounds(log: Held) -> None:
    class Models:
        async def checkpoint(self) -> int:
            return 0

        async def last_event_at(self, _: Any) -> int:
            return 0

    models: Any = Models()
    slots = FoldSlots(1, wait_seconds=0.05)
    stores = Stores(models, rows=models, checkpoint=CheckpointPoller(models.checkpoint, 0.01))
    finder = PastFinder(log, stores, "default", seconds=0.2, slots=slots)
    moment = (b.T0 + timedelta(days=1)).isoformat()
    first = asyncio.create_task(finder.at(moment))
    await reading(log, 1)
    with pytest.raises(TooMany):
        await finder.at(moment)
    with pytest.raises(Unavailable, match="as_of: the events after 0 were not read"):
        await first
    log.go.set()
    assert (await finder.at(moment)).sequence == 4
