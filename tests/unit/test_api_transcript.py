"""Chunks to text, places, and frames of a stream."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaco_api.streams.domain import sse_frames
from abaco_api.streams.domain.output_offset import OutputOffset, parse_offset
from abaco_api.streams.domain.transcript import Piece, Transcript


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_character_in_two_chunks_is_there_with_its_last_byte() -> None:
    transcript = Transcript(OutputOffset(1))
    assert transcript.add(1, 0, b"a\xf0\x9f") == [Piece("a", OutputOffset(1, 1))]
    assert transcript.add(1, 3, b"\x98") == []
    assert transcript.add(1, 4, b"\x80b") == [Piece("😀b", OutputOffset(1, 6))]
    assert transcript.finish() == []


def test_half_a_character_at_the_end_becomes_a_replacement() -> None:
    transcript = Transcript(OutputOffset(1))
    transcript.add(1, 0, b"a\xc3")
    assert text(transcript.finish()) == "\ufffd"


@given(st.text(max_size=50), st.lists(st.integers(0, 200), max_size=8), st.integers(0, 5))
def test_borders_do_not_matter_nor_what_comes_twice(said: str, cuts: list[int], back: int) -> None:
    data = said.encode()
    transcript = Transcript(OutputOffset(1))
    pieces: list[Piece] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        begin = max(start - back, 0)
        pieces += transcript.add(1, begin, data[begin:end])
    assert text(pieces) + text(transcript.finish()) == said
    for piece in pieces:  # every place is one to go on from
        resumed = Transcript(piece.end)
        rest = text(resumed.add(1, 0, data)) + text(resumed.finish())
        done = pieces[: pieces.index(piece) + 1]
        assert text(done) + rest == said or not piece.text


def test_bytes_that_never_came_leave_a_mark() -> None:
    transcript = Transcript(OutputOffset(1))
    transcript.add(1, 0, b"a")
    assert transcript.misses(1, 3)
    assert not transcript.misses(1, 1)
    assert text(transcript.add(1, 3, b"d")) == "\n[2 bytes are missing here]\nd"


def test_a_new_attempt_begins_anew_and_says_so() -> None:
    transcript = Transcript(OutputOffset(1))
    transcript.add(1, 0, b"first\n")
    assert transcript.misses(2, 5)
    pieces = transcript.add(2, 0, b"second\n")
    assert text(pieces) == "\n[attempt 2 begins here]\nsecond\n"
    assert pieces[-1].end == OutputOffset(2, 7)
    assert transcript.add(1, 6, b"late\n") == []


def test_the_first_attempt_that_says_anything_needs_no_mark() -> None:
    transcript = Transcript(OutputOffset(0))
    assert text(transcript.add(2, 0, b"a")) == "a"


def test_who_comes_back_is_told_of_a_new_attempt() -> None:
    transcript = Transcript(OutputOffset(1, 6))
    assert text(transcript.add(1, 0, b"first\n")) == ""
    assert text(transcript.add(2, 0, b"b")) == "\n[attempt 2 begins here]\nb"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("1:17", OutputOffset(1, 17)),
        ("17", OutputOffset(3, 17)),
        ("0", OutputOffset(3, 0)),
        ("2:0", OutputOffset(2, 0)),
    ],
)
def test_a_place_comes_back_as_it_was_told(said: str, found: OutputOffset) -> None:
    assert parse_offset(said, 3) == found
    assert parse_offset(str(found), 3) == found


@pytest.mark.parametrize("said", ["", "-1", "1:", ":1", "a", "1:2:3", "²", "9" * 19])
def test_what_is_no_place(said: str) -> None:
    assert parse_offset(said, 1) is None


def test_every_line_of_a_text_is_a_line_of_data() -> None:
    frame = sse_frames.output(Piece("a\r\nb\rc\n", OutputOffset(1, 7)))
    assert frame == b"id: 1:7\nevent: output\ndata: a\ndata: b\ndata: c\ndata: \n\n"
