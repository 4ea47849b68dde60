from hypothesis import given
from hypothesis import strategies as st

from abaco_projector.domain.output_chunks import Chunk, chunks
from abaco_proto.output import Output

KEY = ("default", "foo_0_exc_0", 1)


def output(offset: int, data: bytes, attempt: int = 1) -> Output:
    return Output(
        tenant="default",
        actor_id="foo_0",
        execution_id="foo_0_exc_0",
        attempt=attempt,
        offset=offset,
        data=data,
    )


def row(offset: int, data: bytes, attempt: int = 1) -> Chunk:
    return Chunk("default", "foo_0_exc_0", attempt, offset, data)


def test_chunks_in_order_are_rows() -> None:
    assert chunks({}, [output(0, b"ab"), output(2, b"c")]) == [row(0, b"ab"), row(2, b"c")]


def test_of_an_overlap_only_the_new_bytes_are_stored() -> None:
    assert chunks({KEY: 3}, [output(0, b"abcde")]) == [row(3, b"de")]
    assert chunks({}, [output(0, b"abc"), output(1, b"bcd")]) == [row(0, b"abc"), row(3, b"d")]


def test_what_is_stored_already_is_no_row() -> None:
    assert chunks({KEY: 3}, [output(0, b"abc"), output(1, b"b"), output(3, b"")]) == []


def test_a_chunk_after_a_gap_keeps_its_offset() -> None:
    assert chunks({KEY: 3}, [output(10, b"xy")]) == [row(10, b"xy")]


def test_attempts_are_apart() -> None:
    assert chunks({KEY: 3}, [output(0, b"z", attempt=2)]) == [row(0, b"z", attempt=2)]


@given(
    st.binary(min_size=1), st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40))), st.data()
)
def test_every_byte_once_whatever_was_sent_again(
    whole: bytes, resent: list[tuple[int, int]], data: st.DataObject
) -> None:
    sent, at = [], 0
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole)))
        sent.append(output(at, whole[at : at + size]))
        at += size
        for offset, length in resent:
            start = offset % at
            sent.append(output(start, whole[start : min(start + length, at)]))
    assert b"".join(chunk.data for chunk in chunks({}, sent)) == whole
