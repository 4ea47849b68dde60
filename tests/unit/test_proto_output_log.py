"""The output stream's messages: whatever stands in one, its reader goes on."""

import pytest

from abaco_jetstream.output_log import ATTEMPT, OFFSET, _recorded
from abaco_jetstream.push_consumer import Message


def test_a_chunk_is_read() -> None:
    headers = {ATTEMPT: "2", OFFSET: "17"}
    found = _recorded(Message(5, "abaco.log.default.foo_0.foo_0_exc_1", headers, b"hello"))
    assert (found.sequence, found.output.execution_id) == (5, "foo_0_exc_1")
    assert (found.output.attempt, found.output.offset, found.output.data) == (2, 17, b"hello")


@pytest.mark.parametrize("subject", ["abaco.log.x", "abaco.log.a.b.c.d"])
@pytest.mark.parametrize("count", ["", "-1", "x", "²", "9" * 5000])
def test_damage_belongs_to_nobody(subject: str, count: str) -> None:
    found = _recorded(Message(5, subject, {OFFSET: count}, b"hello"))
    assert (found.output.execution_id, found.output.offset, found.output.attempt) == ("", 0, 0)
