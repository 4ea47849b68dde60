"""What every ``OutputLog`` promises. ``test_output_log.py`` runs it on the fake and JetStream."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from abaco_jetstream.ports import OutputBatch, OutputLog
from abaco_proto.output import Output
from deadlines import LIMIT_SECONDS

EXECUTION = ("default", "foo_0", "foo_0_exc_1")


def output(data: bytes, offset: int = 0, **changes: Any) -> Output:
    tenant, actor_id, execution_id = EXECUTION
    values: dict[str, Any] = {
        "tenant": tenant,
        "actor_id": actor_id,
        "execution_id": execution_id,
        "attempt": 1,
        "offset": offset,
        "data": data,
        **changes,
    }
    return Output(**values)


async def take(batches: AsyncGenerator[OutputBatch, None], count: int) -> list[Output]:
    """The first ``count`` chunks of a follower."""
    taken: list[Output] = []
    async with asyncio.timeout(LIMIT_SECONDS), aclosing(batches):
        async for batch in batches:
            taken += [chunk.output for chunk in batch.chunks]
            if len(taken) >= count:
                return taken
    raise AssertionError("a follower never ends")


class OutputLogSuite:
    async def test_what_was_written_is_read_back_whole(self, outputs: OutputLog) -> None:
        written = output(b"\x00\xff\n", 17, attempt=3)
        await outputs.write(written)
        assert await take(outputs.follow(), 1) == [written]

    async def test_a_chunk_written_twice_is_there_once(self, outputs: OutputLog) -> None:
        for _ in range(2):
            await outputs.write(output(b"a"))
        await outputs.write(output(b"b", 1))
        assert [o.data for o in await take(outputs.follow(), 2)] == [b"a", b"b"]

    async def test_follow_begins_behind_a_place(self, outputs: OutputLog) -> None:
        await outputs.write(output(b"a"))
        await outputs.write(output(b"b", 1))
        assert [o.data for o in await take(outputs.follow(after=1), 1)] == [b"b"]

    async def test_the_output_of_one_execution_is_followed_alone(self, outputs: OutputLog) -> None:
        others = ("foo_0_exc_10", "foo_0_exc_0")
        await outputs.write(output(b"a"))
        for other in others:
            await outputs.write(output(b"x", execution_id=other))
        await outputs.write(output(b"x", tenant="else"))
        await outputs.write(output(b"b", attempt=2))
        following = asyncio.create_task(take(outputs.follow_execution(*EXECUTION), 3))
        await outputs.write(output(b"x", 1, execution_id=others[0]))
        await outputs.write(output(b"c", 1, attempt=2))
        assert [(o.attempt, o.data) for o in await following] == [(1, b"a"), (2, b"b"), (2, b"c")]

    async def test_a_follower_of_one_speaks_at_once_even_of_nothing(
        self, outputs: OutputLog
    ) -> None:
        await outputs.write(output(b"x", execution_id="foo_0_exc_0"))
        async with (
            asyncio.timeout(LIMIT_SECONDS),
            aclosing(outputs.follow_execution(*EXECUTION)) as batches,
        ):
            batch = await anext(batches)
        assert (list(batch.chunks), batch.pending) == ([], 0)
