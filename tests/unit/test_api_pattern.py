"""Patterns of subscriptions: what they mean, and which can mean nothing."""

import pytest

from abaco_api.domain.event_pattern import matches, why_unmatchable

FINISHED = "execution.finished"


@pytest.mark.parametrize(
    ("pattern", "actor_id", "kind"),
    [
        ("foo_0.execution.finished", "foo_0", FINISHED),
        ("foo_*.execution.finished", "foo_12", FINISHED),
        ("*.execution.finished", "foo_0", FINISHED),
        ("*_0.*.fin*", "foo_0", FINISHED),
        ("f*_*.exec*.*ed", "foo_0", FINISHED),
        ("foo_0.*.*", "foo_0", FINISHED),
        ("foo_0.>", "foo_0", FINISHED),
        ("foo_0.execution.>", "foo_0", FINISHED),
        (">", "foo_0", FINISHED),
        ("_host-*.host.joined", "_host-h1", "host.joined"),
        ("*.>", "_host-h1", "host.joined"),
    ],
)
def test_what_matches(pattern: str, actor_id: str, kind: str) -> None:
    assert why_unmatchable(pattern) is None
    assert matches(pattern, actor_id, kind)


@pytest.mark.parametrize(
    ("pattern", "actor_id", "kind"),
    [
        ("foo_0.execution.finished", "foo_1", FINISHED),
        ("foo_0.execution.finished", "foo_0", "execution.started"),
        ("foo_*.execution.finished", "bar_0", FINISHED),
        ("FOO_*.execution.finished", "foo_0", FINISHED),
        ("foo_0.*", "foo_0", FINISHED),
        ("not a pattern", "foo_0", FINISHED),
        ("foo_0.execution.finished", "foo_0", "strange"),
    ],
)
def test_what_does_not_match(pattern: str, actor_id: str, kind: str) -> None:
    assert not matches(pattern, actor_id, kind)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("foo_0", "expected"),
        ("foo_0.*", "expected"),
        ("foo_0.execution", "expected"),
        ("foo_0.execution.finished.h1", "expected"),
        ("foo_0.execution.finished.>", "expected"),
        ("foo_0..finished", "expected"),
        (">.execution.finished", "expected"),
        ("foo_0.>.finished", "expected"),
        ("foo_0.execution.fin>", "expected"),
        ("foo_0.execution.finish", "no event"),
        ("foo_0.worker.finished", "no event"),
        ("foo_0.Execution.finished", "no event"),
        ("foo.execution.finished", "source"),
        ("foo_00.execution.finished", "source"),
        ("-*.execution.finished", "source"),
        ("*_x.execution.finished", "source"),
        ("foo_0.host.joined", "source"),
        ("_host-h1.execution.finished", "source"),
    ],
)
def test_what_can_never_match_is_a_mistake(pattern: str, why: str) -> None:
    assert why in (why_unmatchable(pattern) or "")
