import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from abaco_worker.domain.output_counter import CHUNK_BYTES, truncation_mark
from abaco_worker.runs import output_recorder as module
from abaco_worker.runs.output_recorder import OutputRecorder, coalesced
from fakes import InMemoryOutputLog
from unit.test_worker_run_spec import order


async def pieces(*data: bytes) -> AsyncGenerator[bytes, None]:
    for piece in data:
        await asyncio.sleep(0)
        yield piece


async def then_silence(*data: bytes) -> AsyncGenerator[bytes, None]:
    for piece in data:
        yield piece
    await asyncio.Event().wait()


def recorder(outputs: InMemoryOutputLog, limit: int = 10**6) -> OutputRecorder:
    return OutputRecorder(outputs, order(), limit)


def recorded(outputs: InMemoryOutputLog) -> bytes:
    return b"".join(chunk.output.data for chunk in outputs.chunks)


async def test_output_is_recorded_under_the_attempt() -> None:
    outputs = InMemoryOutputLog()
    await recorder(outputs).record(pieces(b"a", b"b"))
    assert recorded(outputs) == b"ab"
    output = outputs.chunks[0].output
    assert (output.tenant, output.actor_id) == ("default", "foo_0")
    assert (output.execution_id, output.attempt, output.offset) == ("foo_0_exc_7", 1, 0)


async def test_read_again_only_the_rest_is_recorded() -> None:
    outputs = InMemoryOutputLog()
    mine = recorder(outputs)
    await mine.record(pieces(b"ab", b"cd"))
    await mine.record(pieces(b"a", b"bcde", b"f"))
    assert recorded(outputs) == b"abcdef"
    assert mine.counter.recorded_bytes == 6


async def test_the_first_line_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60)
    output = coalesced(then_silence(b"first"))
    async with asyncio.timeout(30):
        assert await anext(output) == b"first"
    await output.aclose()


async def test_what_trickles_is_gathered_but_not_for_long() -> None:
    output = coalesced(then_silence(b"first", b"a", b"b"))
    assert await anext(output) == b"first"
    before = time.monotonic()
    assert await anext(output) == b"ab"
    assert time.monotonic() - before < 30
    await output.aclose()


async def test_much_output_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60)
    big = b"x" * CHUNK_BYTES
    output = coalesced(then_silence(b"first", big, big))
    async with asyncio.timeout(30):
        assert [await anext(output) for _ in range(3)] == [b"first", big, big]
    await output.aclose()


async def test_the_last_words_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60)
    async with asyncio.timeout(30):
        assert [p async for p in coalesced(pieces(b"a", b"b", b"c"))] == [b"a", b"bc"]


async def test_reading_stops_at_the_limit() -> None:
    outputs = InMemoryOutputLog()
    mine = recorder(outputs, limit=4)
    async with asyncio.timeout(30):
        await mine.record(then_silence(b"abcdef"))
    assert mine.counter.truncated
    assert recorded(outputs) == b"abcd" + truncation_mark(4)


async def test_while_the_output_log_is_away_nothing_more_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)
    outputs = InMemoryOutputLog()
    outputs.available = False
    taken: list[int] = []

    async def endless() -> AsyncGenerator[bytes, None]:
        for n in range(100):
            taken.append(n)
            yield b"x" * CHUNK_BYTES
            await asyncio.sleep(0)

    recording = asyncio.create_task(recorder(outputs, 10**7).record(endless()))
    await asyncio.wait({recording}, timeout=0.05)
    assert len(taken) < 5
    outputs.available = True
    async with asyncio.timeout(30):
        await recording
    assert len(recorded(outputs)) == 100 * CHUNK_BYTES


async def test_an_error_of_the_source_comes_out() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise LookupError

    outputs = InMemoryOutputLog()
    with pytest.raises(LookupError):
        await recorder(outputs).record(broken())
