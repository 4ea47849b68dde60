"""Whatever comes, and however it is cut, our parser passes on what the library's does."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from abaco_jetstream.client import QuickClient
from abaco_jetstream.parser import MOST_BYTES, QuickParser


class Taker:
    """What a parser calls, written down."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*words: Any) -> None:
            self.calls.append((name, *words))

        return call


def message(headers: bytes, body: bytes, reply: bytes) -> bytes:
    line = b"HMSG abaco.event.x 7 %s%d %d" % (reply, len(headers), len(headers) + len(body))
    return line + b"\r\n" + headers + body + b"\r\n"


bodies = st.binary(max_size=20) | st.sampled_from([b"HMSG a 1 2 3\r\n", b"x" * 3 * MOST_BYTES])
said = st.one_of(
    st.builds(
        message,
        st.just(b"NATS/1.0\r\nA: b\r\n\r\n"),
        bodies,
        st.sampled_from([b"", b"$JS.ACK.1 ", b"  "]),
    ),
    bodies.map(lambda body: b"MSG foo 1 %d\r\n%s\r\n" % (len(body), body)),
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n", b'INFO {"a":1}\r\n']),
)


async def passed_on(kind: type[Parser], pieces: list[bytes]) -> list[tuple[Any, ...]]:
    taker = Taker()
    parser = kind(taker)
    try:
        for piece in pieces:
            await parser.parse(piece)
    except ProtocolError:
        taker.calls.append(("error",))
    return taker.calls


@given(st.lists(said, max_size=6).map(b"".join), st.lists(st.integers(1, 60), max_size=12))
def test_it_passes_on_the_same(stream: bytes, sizes: list[int]) -> None:
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    pieces.append(stream)
    expected = asyncio.run(passed_on(Parser, pieces))
    assert asyncio.run(passed_on(QuickParser, pieces)) == expected


def test_the_library_still_keeps_its_parser_there() -> None:
    assert type(Client()._ps) is Parser
    assert type(QuickClient()._ps) is QuickParser
