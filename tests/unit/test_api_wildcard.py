"""Stars: the same answers as a regular expression, in no time."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from abaco_api.domain import event_pattern
from abaco_api.domain.wildcard import wildcard_matches
from abaco_api.streams.domain.selection import type_matches
from mutations import alarm

SHORT = st.text("ab*.", max_size=8)


@given(SHORT, st.text("ab.", max_size=10))
@example("a*a", "a")
@example("*", "")
@example("ab*ba", "aba")
def test_it_answers_as_a_regular_expression_does(wanted: str, text: str) -> None:
    expression = ".*".join(map(re.escape, wanted.split("*")))
    assert wildcard_matches(wanted, text) is (re.fullmatch(expression, text) is not None)


def test_no_pattern_keeps_anybody_waiting() -> None:
    many, long = "*a" * 120 + "*b", "a" * 60
    with alarm(1):
        assert not wildcard_matches(many, long)
        assert not type_matches("*e" * 100 + "*x", "execution.finished")
        assert not event_pattern.matches(f"{many}.*.*", f"{long}_0", "execution.finished")
        assert event_pattern.why_unmatchable(f"{many}.execution.*") is not None
