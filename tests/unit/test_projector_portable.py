"""The portable file: everything is restored, and all damage is detected."""

import gzip
import io
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaco_projector.domain.portable_format import (
    EndLine,
    EventLine,
    OutputLine,
    PortableFileWriter,
    event_line,
    read_lines,
)
from abaco_proto.errors import Refused

SUBJECT = "abaco.event.default.foo_0.message.received"
bodies = st.lists(st.binary(max_size=30), max_size=8)
headers = st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3)
outputs = st.lists(st.binary(min_size=1, max_size=30), max_size=4)


def file_of(*found: EventLine | OutputLine) -> bytes:
    raw = io.BytesIO()
    writer = PortableFileWriter(raw)
    for line in found:
        writer.write(line)
    writer.close()
    return raw.getvalue()


def small() -> bytes:
    messages = [
        event_line(n, SUBJECT, {"Nats-Msg-Id": f"default.{n}"}, b'{"n":1}') for n in (1, 2, 3)
    ]
    return file_of(*messages, OutputLine("default", "foo_0_exc_0", 1, 0, b"\xff"))


def read(raw: bytes) -> list[EventLine | OutputLine | EndLine]:
    return list(read_lines(io.BytesIO(raw), "f"))


def with_lines(raw: bytes, change: object) -> bytes:
    parts = gzip.decompress(raw).splitlines(keepends=True)
    return gzip.compress(b"".join(change(parts)))  # type: ignore[operator]


@given(bodies, headers, outputs)
def test_what_was_written_is_read(
    found: list[bytes], heads: dict[str, str], chunks: list[bytes]
) -> None:
    messages = [event_line(n, SUBJECT, heads, body) for n, body in enumerate(found, 1)]
    output = [OutputLine("default", "foo_0_exc_0", 1, n, data) for n, data in enumerate(chunks)]
    *middle, end = read(file_of(*messages, *output))
    assert middle == [*messages, *output]
    assert [line.body for line in middle if isinstance(line, EventLine)] == found
    assert isinstance(end, EndLine)
    assert (end.events, end.chunks) == (len(found), len(chunks))


def test_any_language_can_read_it() -> None:
    first, *_, last = [json.loads(line) for line in gzip.decompress(small()).splitlines()]
    assert first == {"kind": "header", "format": 2, "stream": "ABACO_EVENTS"}
    assert (last["kind"], last["events"], last["chunks"]) == ("end", 3, 1)


def test_the_same_history_is_the_same_file() -> None:
    assert small() == small()


@given(st.data())
def test_a_damaged_byte_is_found(data: st.DataObject) -> None:
    raw = bytearray(small())
    at = data.draw(st.integers(10, len(raw) - 1))  # the first ten are gzip's own, and say nothing
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused, match="f"):
        read(bytes(raw))


@given(st.data())
def test_a_changed_line_is_found(data: st.DataObject) -> None:
    whole = small()
    count = len(gzip.decompress(whole).splitlines())
    at = data.draw(st.integers(0, count - 1))
    place = data.draw(st.integers(0, 30))
    digit = data.draw(st.sampled_from(b"0123456789abcdef"))

    def change(parts: list[bytes]) -> list[bytes]:
        line = bytearray(parts[at])
        line[place] = digit
        return [*parts[:at], bytes(line), *parts[at + 1 :]]

    changed = with_lines(whole, change)
    if gzip.decompress(changed) != gzip.decompress(whole):
        with pytest.raises(Refused, match="f"):
            read(changed)


@given(st.integers(0, 5))
def test_a_line_that_is_gone_is_found(at: int) -> None:
    with pytest.raises(Refused, match="f"):
        read(with_lines(small(), lambda parts: parts[:at] + parts[at + 1 :]))


@given(st.data())
def test_a_file_that_is_cut_off_is_found(data: st.DataObject) -> None:
    raw = small()
    with pytest.raises(Refused, match="f"):
        read(raw[: data.draw(st.integers(0, len(raw) - 1))])


def test_something_behind_the_end_is_found() -> None:
    with pytest.raises(Refused, match="does not hold what its end says"):
        read(with_lines(small(), lambda parts: [*parts, b"more"]))


def of_format(raw: bytes, number: int) -> bytes:
    """The file as a version would have written it that has this format, with its checksum."""

    def change(parts: list[bytes]) -> list[bytes]:
        first = parts[0].replace(b'"format":2', b'"format":%d' % number)
        body = [first, *parts[1:-1]]
        end = json.loads(parts[-1]) | {"sha256": sha256(b"".join(body)).hexdigest()}
        return [*body, json.dumps(end).encode() + b"\n"]

    return with_lines(raw, change)


def test_a_file_of_the_version_before_is_read() -> None:
    assert read(of_format(small(), 1))[:-1] == read(small())[:-1]


def test_another_format_is_refused() -> None:
    with pytest.raises(Refused, match="f: format 3 of ABACO_EVENTS is not known here"):
        read(of_format(small(), 3))


def test_an_event_with_a_wrong_sequence_is_not_written() -> None:
    with pytest.raises(Refused, match="event 1 is missing"):
        file_of(event_line(2, SUBJECT, {}, b""))
