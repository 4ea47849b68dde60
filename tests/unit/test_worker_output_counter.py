import hashlib

from hypothesis import given
from hypothesis import strategies as st

from abaco_worker.domain.output_counter import CHUNK_BYTES, OutputCounter, truncation_mark


@given(st.lists(st.binary(max_size=50)), st.integers(0, 200))
def test_the_record_does_not_depend_on_how_the_output_comes(
    pieces: list[bytes], limit: int
) -> None:
    whole = b"".join(pieces)
    tally = OutputCounter(limit)
    chunks = [chunk for piece in pieces for chunk in tally.add(piece)]
    recorded = b"".join(chunk.data for chunk in chunks)
    cut = len(whole) > limit
    assert recorded == (whole[:limit] + truncation_mark(limit) if cut else whole)
    assert tally.truncated == cut
    assert tally.recorded_bytes == len(recorded)
    assert tally.sha256 == hashlib.sha256(recorded).hexdigest()


@given(st.lists(st.binary(min_size=1, max_size=3 * CHUNK_BYTES), max_size=5))
def test_chunks_follow_one_another_and_are_small(pieces: list[bytes]) -> None:
    tally = OutputCounter(1024 * 1024)
    offset = 0
    for chunk in (chunk for piece in pieces for chunk in tally.add(piece)):
        assert chunk.offset == offset
        assert 0 < len(chunk.data) <= CHUNK_BYTES
        offset += len(chunk.data)


def test_output_of_just_the_limit_is_whole() -> None:
    tally = OutputCounter(3)
    assert [c.data for c in tally.add(b"abc")] == [b"abc"]
    assert not tally.truncated


def test_after_the_mark_nothing_is_recorded() -> None:
    tally = OutputCounter(3)
    assert [c.data for c in tally.add(b"abcd")] == [b"abc\n[abaco: output truncated at 3 bytes]\n"]
    assert list(tally.add(b"more")) == []


def test_no_output_has_the_digest_of_nothing() -> None:
    assert OutputCounter(0).sha256 == hashlib.sha256(b"").hexdigest()
