"""What a body is coded in, and which answers a client takes."""

import gzip
import json
import tracemalloc
import zlib

import httpx
import pytest

from abaco_api.api_errors import BodyTooLarge, UnsupportedCoding
from abaco_api.http.content_coding import decoded
from abaco_api.http.content_negotiation import accept
from abaco_proto import events as ev
from abaco_proto.errors import Malformed
from idempotency_stage import world

STREAM, JSON, TEXT = "text/event-stream", "application/json", "text/plain"
LIMIT = 100_000

# -- Content-Encoding ----------------------------------------------------------------------------

BODY = b'{"message": "' + b"hi" * 1000 + b'"}'


def bare(body: bytes) -> bytes:
    """Deflate without a head, as some clients send it."""
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(body) + coder.flush()


@pytest.mark.parametrize(
    ("headers", "raw"),
    [
        ([], BODY),
        ([""], BODY),
        (["identity"], BODY),
        (["gzip"], gzip.compress(BODY, mtime=0)),
        ([" GZIP , identity"], gzip.compress(BODY, mtime=0)),
        (["x-gzip"], gzip.compress(BODY, mtime=0)),
        (["deflate"], zlib.compress(BODY)),
        (["deflate"], bare(BODY)),
    ],
)
def test_a_body_is_decoded(headers: list[str], raw: bytes) -> None:
    assert decoded(raw, headers, LIMIT) == BODY


@pytest.mark.parametrize("headers", [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "deflate"], ["*"]])
def test_a_coding_that_nobody_reads_is_named(headers: list[str]) -> None:
    with pytest.raises(UnsupportedCoding, match="Content-Encoding: expected one of gzip, deflate"):
        decoded(gzip.compress(BODY), headers, LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_not_what_it_says_is_refused(coding: str) -> None:
    raw = gzip.compress(BODY) if coding == "gzip" else zlib.compress(BODY)
    for bad in (raw[:-1], raw[:10], raw + b"x", raw + raw, BODY, b"\x00", raw[:5] + b"\xff" * 50):
        with pytest.raises(Malformed):
            decoded(bad, [coding], LIMIT)


def test_a_small_body_that_would_be_large_is_refused_before_it_is() -> None:
    for raw, coding in (
        (gzip.compress(b"0" * 50_000_000, mtime=0), "gzip"),
        (zlib.compress(b"0" * 50_000_000), "deflate"),
    ):
        tracemalloc.start()
        with pytest.raises(BodyTooLarge):
            decoded(raw, [coding], LIMIT)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 10 * LIMIT
    assert decoded(gzip.compress(b"0" * LIMIT), ["gzip"], LIMIT) == b"0" * LIMIT


async def test_a_coded_body_is_a_request_like_any_other() -> None:
    async with world() as stage:
        client = stage.processes[0].http
        await client.post("/actors", data={"image": "a/b", "name": "foo"})

        async def send(raw: bytes, coding: str) -> httpx.Response:
            headers = {"Content-Type": JSON, "Content-Encoding": coding}
            return await client.post("/actors/foo_0/messages", content=raw, headers=headers)

        assert (await send(gzip.compress(BODY), "gzip")).status_code == 200
        assert (await send(zlib.compress(BODY), "deflate")).status_code == 200
        cut = await send(gzip.compress(BODY)[:-3], "gzip")
        assert (cut.status_code, cut.json()["error"]) == (400, "malformed")
        bomb = await send(gzip.compress(json.dumps("0" * 5_000_000).encode()), "gzip")
        assert (bomb.status_code, bomb.json()["error"]) == (413, "too_large")
        unknown = await send(BODY, "br")
        assert (unknown.status_code, unknown.json()["error"]) == (415, "unsupported_media_type")
        assert unknown.headers["Accept-Encoding"] == "gzip, deflate"


# -- Accept --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "streams"),
    [
        ([], False),
        (["*/*"], False),
        (["text/event-stream"], True),
        (["Text/Event-Stream"], True),
        (["text/event-stream;q=0"], False),
        (["text/event-stream;q=0.0, */*"], False),
        (["text/event-stream ; q=0.001"], True),
        (["application/json, text/event-stream"], True),
        (["application/json", "text/event-stream"], True),
        (["application/json, text/event-stream;q=0.9"], False),
        (["application/json;q=0.8, text/event-stream;q=0.9"], True),
        (["text/event-stream, */*;q=0.1"], True),
        (["text/*"], True),
        (["text/*, text/event-stream;q=0"], False),
        (["*/*;q=0.5, application/json;q=0.2"], True),
        (["text/event-stream;charset=utf-8"], True),
        (["text/event-streams"], False),
        (["application/x;a=text/event-stream"], False),
        (["text/event-stream;q=x"], False),
        (["text/event-stream;q=2"], False),
        ([",,;q=1,"], False),
    ],
)
def test_a_stream_is_for_who_prefers_it_to_json(headers: list[str], streams: bool) -> None:  # noqa: FBT001
    assert accept(headers).prefers(STREAM, JSON) is streams


def test_which_of_two_texts() -> None:
    assert not accept(["text/*"]).prefers(STREAM, TEXT)
    assert accept(["text/event-stream, text/plain;q=0.5"]).prefers(STREAM, TEXT)
    assert not accept(["text/event-stream;q=0.5, text/plain"]).prefers(STREAM, TEXT)
    assert not accept(["text/event-stream;q=0, text/plain"]).prefers(STREAM, TEXT)


# -- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "k-1"])
async def test_a_json_message_is_kept_and_told_as_it_was_sent(key: str | None) -> None:
    text = '{"b": [100000000000000000000.01, 1e400,  -0, 1.0], "a": "\\u00e9\\/"}'
    async with world() as stage:
        client = stage.processes[0].http
        await client.post("/actors", data={"image": "a/b", "name": "foo"})
        headers = {"Content-Type": JSON, **({} if key is None else {"Idempotency-Key": key})}
        for _ in range(2):
            answer = await client.post(
                "/actors/foo_0/messages", content=f'{{"message" : {text} }}', headers=headers
            )
            assert answer.status_code == 200
            assert f'"msg":{text}'.encode() in answer.content
        received = [e for e in stage.log.bodies() if isinstance(e, ev.MessageReceived)]
        assert {e.message for e in received} == {text}
        assert len(received) == (2 if key is None else 1)
