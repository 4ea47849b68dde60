"""Followed output joins to what ``/logs`` gives, however it is cut into pieces."""

import asyncio
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from abaco_api.domain import views
from abaco_api.streams.domain import sse_frames
from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.domain.transcript import Transcript
from abaco_api.streams.output import output_reader
from abaco_api.streams.output.end_poller import EndPoller
from abaco_api.streams.output.live_output import LiveOutput
from abaco_proto.output import Output
from deadlines import LIMIT_SECONDS
from fakes import InMemoryOutputLog
from live_stage import Connection, Models, chunk, row

BYTES = st.lists(
    st.sampled_from(
        [
            *(b"\r", b"\n", b"\r\n", b"\0", b"", b" ", b":", b"data: x", b"\xef\xbb\xbf"),
            *("é".encode(), "😀".encode(), "\u2028".encode(), "\x85".encode()),
            *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f", b"a", b"line\n"),
            b"\n[abaco: output truncated at 12 bytes]\n",
        ]
    )
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=10)


def cut(data: bytes, cuts: list[int]) -> list[Output]:
    """The bytes as chunks of the output stream."""
    edges = sorted({0, len(data), *(c for c in cuts if c < len(data))})
    return [chunk(data[a:b], a) for a, b in pairwise(edges)]


def whole(data: bytes) -> str:
    """What ``/logs`` gives."""
    return views.output([{"output_offset": 0, "data": data}] if data else [])


def lines(text: str) -> str:
    """A text as a stream of events can carry it."""
    return re.sub("\r\n|\r", "\n", text)


def followed(chunks: list[Output], data: bytes, *, events: bool, stored: bool) -> bytes:
    """The body of the answer to a reader, while the output is stored or still comes."""

    async def read() -> bytes:
        models, outputs = Models(), InMemoryOutputLog()
        ended = row("COMPLETE", log_bytes=len(data))
        models.rows["foo_0", 0] = ended
        if stored:
            models.stored = chunks
        else:
            for one in chunks:
                await outputs.write(one)
        typed: Any = models
        sources = output_reader.OutputSources(
            outputs=outputs,
            models=typed,
            watch=EndPoller(models.ended),
            tenant="default",
            output_timeout=LIMIT_SECONDS,
        )
        connection = Connection()
        first = ended if stored else row()
        answer = LiveOutput(1).follow(sources, first, OutputOffset(1), events=events)
        async with asyncio.timeout(LIMIT_SECONDS):
            await answer({"type": "http"}, connection.receive, connection.send)
        return connection.body

    return asyncio.run(read())


def joined(body: bytes) -> str:
    """The data of all output, as the HTML standard has a reader parse the stream."""
    text, kind, data = "", "", list[str]()
    for line in re.split("\r\n|\r|\n", body.decode()):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif not line:
            text += "\n".join(data) if kind == "output" else ""
            kind, data = "", []
    return text


@settings(max_examples=60, deadline=None)
@example(b"a\r\nb", [2], True)
@example(b"a\r\nb", [2], False)
@example(b"\r", [], True)
@example(b"\r\r\n\r", [1, 2, 3], True)
@example(b"", [], True)
@given(BYTES, CUTS, st.booleans())
def test_followed_output_joins_to_the_whole(data: bytes, cuts: list[int], stored: bool) -> None:  # noqa: FBT001
    chunks = cut(data, cuts)
    text = followed(chunks, data, events=False, stored=stored)
    assert text.decode() == whole(data)
    streamed = followed(chunks, data, events=True, stored=stored)
    assert joined(streamed) == lines(whole(data))


@settings(max_examples=300, deadline=None)
@given(BYTES, CUTS, st.integers(0, 12))
@example(b"a\r\nb", [2], 0)
def test_whoever_comes_back_gets_the_rest(data: bytes, cuts: list[int], seen: int) -> None:
    """A reader that was cut off after any frame goes on from its id, and has missed nothing."""
    body, place = b"", "1:0"
    transcript, output = Transcript(OutputOffset(1)), sse_frames.OutputFrames()
    for one in cut(data, cuts):
        for piece in transcript.add(1, one.offset, one.data):
            if seen and (frame := output.frame(piece)):
                body, seen = body + frame, seen - 1
                output.written()
                assert output.resume_after is not None
                place = output.resume_after
    offset = int(place.partition(":")[2])
    transcript, output = Transcript(OutputOffset(1, offset)), sse_frames.OutputFrames()
    rest = [*transcript.add(1, 0, data), *transcript.finish()] if data else []
    body += b"".join(output.frame(piece) for piece in rest) + output.finish()
    assert joined(body) == lines(whole(data))


@pytest.mark.parametrize("length", range(1, 18))
def test_pieces_of_every_length(length: int) -> None:
    data = "\r\n😀\r\r\né\0\n\r".encode() + b"\xff\xc3\r\n" + b"[abaco: output truncated]\r"
    chunks = cut(data, list(range(length, len(data), length)))
    assert joined(followed(chunks, data, events=True, stored=True)) == lines(whole(data))
    assert followed(chunks, data, events=False, stored=True).decode() == whole(data)
