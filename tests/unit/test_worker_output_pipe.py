import asyncio
import threading

import pytest

from abaco_worker.engine.output_pipe import OutputPipe
from deadlines import LIMIT_SECONDS


async def test_bytes_come_through_in_order() -> None:
    pipe = OutputPipe(asyncio.get_running_loop(), 10)
    data = [b"%d," % n for n in range(1000)]

    def write() -> None:
        for piece in data:
            assert pipe.put(piece)
        pipe.end()

    writer = asyncio.create_task(asyncio.to_thread(write))
    whole = b""
    while piece := await pipe.take():
        assert len(piece) < 20
        whole += piece
    await writer
    assert whole == b"".join(data)


async def test_an_error_comes_after_the_last_byte() -> None:
    pipe = OutputPipe(asyncio.get_running_loop(), 10)
    pipe.put(b"a")
    pipe.end(LookupError())
    pipe.end()
    assert await pipe.take() == b"a"
    with pytest.raises(LookupError):
        await pipe.take()


async def test_a_writer_held_up_is_let_go_when_nobody_reads() -> None:
    pipe = OutputPipe(asyncio.get_running_loop(), 1)
    assert pipe.put(b"full")
    writer = asyncio.create_task(asyncio.to_thread(pipe.put, b"more"))
    await asyncio.sleep(0)
    pipe.close()
    async with asyncio.timeout(LIMIT_SECONDS):
        assert not await writer


@pytest.mark.parametrize("attached_first", [True, False])
async def test_closing_cuts_the_source(attached_first: bool) -> None:  # noqa: FBT001
    pipe = OutputPipe(asyncio.get_running_loop(), 1)
    cut = threading.Event()
    if attached_first:
        pipe.attach(cut.set)
        assert not cut.is_set()
        pipe.close()
    else:
        pipe.close()
        pipe.attach(cut.set)
    assert cut.is_set()
