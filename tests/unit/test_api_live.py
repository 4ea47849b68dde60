"""Readers of live output, over an output stream in memory and read models moved by hand."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import Message

from abaco_api.api_errors import TooMany
from abaco_api.http.wire_protocol import ABORT, CALL
from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.domain.transcript import Piece
from abaco_api.streams.output import output_reader as module
from abaco_api.streams.output.end_poller import EndPoller
from abaco_api.streams.output.live_output import LiveOutput
from abaco_api.streams.output.output_reader import OutputReader, OutputSources
from deadlines import LIMIT_SECONDS
from fakes import InMemoryOutputLog
from live_stage import Connection, Models, Row, chunk, row


class Stage:
    def __init__(self) -> None:
        self.outputs = InMemoryOutputLog()
        self.models = Models()
        self.said: list[Piece | None] = []
        self.grown = asyncio.Event()
        models: Any = self.models
        self.sources = OutputSources(
            outputs=self.outputs,
            models=models,
            watch=EndPoller(self.models.ended),
            tenant="default",
            output_timeout=0.5,
        )

    def read(self, found: Row, begin: OutputOffset | None = None) -> "asyncio.Task[Any]":
        place = begin or OutputOffset(found["attempt"])
        return asyncio.create_task(OutputReader(self.sources, found, place, self.emit).read())

    async def emit(self, piece: Piece | None) -> None:
        self.said.append(piece)
        self.grown.set()

    def end(self, found: Row) -> None:
        self.models.rows["foo_0", 0] = found

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.said if piece is not None)

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.text != text:
                self.grown.clear()
                await self.grown.wait()


@pytest.fixture
async def stage() -> AsyncGenerator[Stage, None]:
    stage = Stage()
    yield stage
    assert stage.outputs.followers == 0


async def test_output_comes_as_it_is_written_and_ends_with_the_execution(stage: Stage) -> None:
    await stage.outputs.write(chunk(b"one\n"))
    reading = stage.read(row())
    await stage.shows("one\n")
    await stage.outputs.write(chunk(b"two\n", 4))
    await stage.shows("one\ntwo\n")
    stage.end(row("COMPLETE", log_bytes=14))
    await stage.outputs.write(chunk(b"three\n", 8))  # behind the word of the end
    ended = await asyncio.wait_for(reading, 5)
    assert ended["status"] == "COMPLETE"
    assert stage.text == "one\ntwo\nthree\n"


async def test_an_execution_that_waits_is_waited_for(stage: Stage) -> None:
    reading = stage.read(row("SUBMITTED", attempt=0))
    await asyncio.sleep(0)
    assert not reading.done()
    await stage.outputs.write(chunk(b"one\n"))
    await stage.shows("one\n")
    stage.end(row("COMPLETE", log_bytes=4))
    await asyncio.wait_for(reading, 5)


async def test_one_that_never_runs_ends_with_nothing(stage: Stage) -> None:
    reading = stage.read(row("SUBMITTED", attempt=0))
    stage.end(row("PURGED", attempt=0))
    assert (await asyncio.wait_for(reading, 5))["status"] == "PURGED"
    assert stage.text == ""


async def test_what_ended_long_ago_is_what_is_stored(stage: Stage) -> None:
    stage.models.stored = [chunk(b"a" * 10, 10 * n) for n in range(100)]
    reading = stage.read(row("COMPLETE", log_bytes=1000))
    await asyncio.wait_for(reading, 1)
    assert stage.text == "a" * 1000
    assert stage.models.asked == 0


async def test_what_the_stream_forgot_is_filled_in(stage: Stage) -> None:
    stage.models.stored = [chunk(b"one\n"), chunk(b"two\n", 4)]
    await stage.outputs.write(chunk(b"three\n", 8))
    reading = stage.read(row())
    await stage.shows("one\ntwo\nthree\n")
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading


async def test_a_silent_run_shows_what_is_stored(stage: Stage) -> None:
    stage.models.stored = [chunk(b"one\n")]
    reading = stage.read(row())
    await stage.shows("one\n")
    stage.end(row("COMPLETE", log_bytes=4))
    await asyncio.wait_for(reading, 5)


async def test_without_postgres_output_goes_on_and_a_gap_is_marked(stage: Stage) -> None:
    stage.models.available = False
    await stage.outputs.write(chunk(b"two\n", 4))
    reading = stage.read(row())
    await stage.shows("\n[4 bytes are missing here]\ntwo\n")
    stage.models.available = True
    stage.end(row("COMPLETE", log_bytes=8))
    await asyncio.wait_for(reading, 5)


async def test_another_attempt_is_marked_and_older_ones_are_left_out(stage: Stage) -> None:
    await stage.outputs.write(chunk(b"old\n"))
    await stage.outputs.write(chunk(b"two\n", attempt=2))
    reading = stage.read(row(attempt=2))
    await stage.shows("two\n")
    await stage.outputs.write(chunk(b"three\n", attempt=3))
    await stage.shows("two\n\n[attempt 3 begins here]\nthree\n")
    stage.end(row("COMPLETE", attempt=3, log_bytes=6))
    await asyncio.wait_for(reading, 5)


async def test_an_abandoned_attempt_ends_soon_with_what_has_come(stage: Stage) -> None:
    await stage.outputs.write(chunk(b"one\xc3"))
    reading = stage.read(row())
    await stage.shows("one")
    stage.end(row("ERROR"))
    await asyncio.wait_for(reading, 5)
    assert stage.text == "one\ufffd"


async def test_output_that_is_lost_is_not_waited_for_without_end(stage: Stage) -> None:
    reading = stage.read(row("COMPLETE", log_bytes=100))
    stage.end(row("COMPLETE", log_bytes=100))
    assert (await asyncio.wait_for(reading, 5))["log_bytes"] == 100


async def test_nothing_new_is_said_now_and_then(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    reading = stage.read(row())
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(stage.said) < 3:
            await stage.grown.wait()
            stage.grown.clear()
    assert set(stage.said) == {None}
    stage.end(row("COMPLETE"))
    await asyncio.wait_for(reading, 5)


async def test_one_question_asks_for_all_and_nobody_asks_for_none() -> None:
    models = Models()
    watch = EndPoller(models.ended)
    waiting = [asyncio.create_task(watch.end(("foo_0", n % 10))) for n in range(100)]
    await asyncio.sleep(0.01)
    models.rows = {("foo_0", n): row("COMPLETE") for n in range(10)}
    await asyncio.wait_for(asyncio.gather(*waiting), LIMIT_SECONDS)
    assert models.asked <= 3
    assert not watch._waiting


# -- the answer ----------------------------------------------------------------------------------


async def serve(stage: Stage, connection: Connection, found: Row, *, events: bool) -> None:
    answer = LiveOutput(1).follow(
        stage.sources, found, OutputOffset(found["attempt"]), events=events
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        await answer({"type": "http"}, connection.receive, connection.send)


async def test_the_answer_as_text(stage: Stage) -> None:
    stage.models.stored = [chunk("é\n".encode())]
    connection = Connection()
    await serve(stage, connection, row("COMPLETE", log_bytes=3), events=False)
    assert connection.body == "é\n".encode()
    headers = dict(connection.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers


async def test_the_answer_as_events_ends_with_the_execution(stage: Stage) -> None:
    stage.models.stored = [chunk(b"a\n")]
    connection = Connection()
    await serve(stage, connection, row("COMPLETE", log_bytes=2), events=True)
    output, end = connection.body.split(b"\n\n")[:2]
    assert output == b"id: 1:2\nevent: output\ndata: a\ndata: "
    assert end.startswith(b'event: end\ndata: {"id":"foo_0_exc_0"')


async def test_who_goes_away_is_not_read_for_any_more(stage: Stage) -> None:
    connection = Connection()
    serving = asyncio.create_task(serve(stage, connection, row(), events=False))
    async with asyncio.timeout(LIMIT_SECONDS):
        while not stage.outputs.followers:
            await asyncio.sleep(0)
    connection.left.set()
    await serving
    assert stage.outputs.followers == 0


async def test_there_is_a_most_of_readers(stage: Stage) -> None:
    live = LiveOutput(1)
    connection = Connection()
    answer = live.follow(stage.sources, row(), OutputOffset(1), events=False)
    serving = asyncio.create_task(answer({"type": "http"}, connection.receive, connection.send))
    while not live.readers:
        await asyncio.sleep(0)
    with pytest.raises(TooMany):
        live.follow(stage.sources, row(), OutputOffset(1), events=False)
    connection.left.set()
    await serving
    live.follow(stage.sources, row(), OutputOffset(1), events=False)


async def test_a_slow_reader_holds_the_stream_back(stage: Stage) -> None:
    taken: list[Piece | None] = []
    go = asyncio.Event()

    async def emit(piece: Piece | None) -> None:
        taken.append(piece)
        await go.wait()

    reading = asyncio.create_task(OutputReader(stage.sources, row(), OutputOffset(1), emit).read())
    for n in range(50):
        await stage.outputs.write(chunk(b"x", n))
        for _ in range(5):  # everybody gets a turn
            await asyncio.sleep(0)
    assert len(taken) == 1
    assert stage.outputs.handed_out < 10
    stage.end(row("COMPLETE", log_bytes=50))
    go.set()
    await asyncio.wait_for(reading, 5)
    assert len(taken) == 50


# -- a reader that takes nothing -----------------------------------------------------------------


class Stalled(Connection):
    """A connection that takes so many pieces, and then nothing, until it is cut."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self._takes = takes

    async def send(self, message: Message) -> None:
        if len(self.sent) > self._takes and message.get("body") != b"":
            await self.left.wait()
        await super().send(message)

    @property
    def scope(self) -> dict[str, Any]:
        return {"type": "http", "extensions": {ABORT: {CALL: self.left.set}}}


@pytest.mark.parametrize("events", [False, True])
async def test_a_stalled_reader_is_disconnected_without_an_error(
    stage: Stage, *, events: bool
) -> None:
    stage.models.stored = [chunk(b"a" * 10, 10 * n) for n in range(10)]
    connection = Stalled(3)
    live = LiveOutput(1, 0.05)
    answer = live.follow(
        stage.sources, row("COMPLETE", log_bytes=100), OutputOffset(1), events=events
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        await answer(connection.scope, connection.receive, connection.send)
    assert connection.left.is_set()
    assert live.readers == 0
    assert connection.body.count(b"aaaaaaaaaa") == 3


async def test_a_slow_reader_is_told_where_to_go_on(stage: Stage) -> None:
    class Slow(Stalled):
        async def send(self, message: Message) -> None:
            if message.get("more_body"):
                await super().send(message)
            else:  # by now it takes something again
                self.sent.append(message)

    stage.models.stored = [chunk(b"a" * 10, 10 * n) for n in range(10)]
    connection = Slow(2)
    live = LiveOutput(1, 0.05)
    answer = live.follow(
        stage.sources, row("COMPLETE", log_bytes=100), OutputOffset(1), events=True
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        await answer(connection.scope, connection.receive, connection.send)
    last = connection.sent[-1]["body"].decode()
    assert last.startswith("event: dropped\ndata: ")
    assert json.loads(last.partition("data: ")[2]) == {
        "reason": "the connection took nothing for too long",
        "resume_after": "1:20",
    }


async def test_a_reader_ahead_of_the_row_is_not_read_for_without_end(stage: Stage) -> None:
    """``Last-Event-ID: 5:0``, while the read models have one attempt of more than a page."""
    stage.models.stored = [chunk(b"a" * 10, 10 * n) for n in range(100)]
    stage.end(row("COMPLETE", log_bytes=1000))
    ended = await asyncio.wait_for(
        stage.read(row("COMPLETE", log_bytes=1000), begin=OutputOffset(5)), timeout=LIMIT_SECONDS
    )
    assert ended["status"] == "COMPLETE"
    assert stage.text == ""
    assert stage.models.filled < 10
