"""A client of several NATS servers finds one that works, whichever of them does not."""

import pytest

from abaco_jetstream.connection import leader_probe, nats_connection
from abaco_jetstream.connection.failover import Failover

SECONDS = 4.0
WRITE, READ = "abaco.event", ""


@pytest.fixture
def failover() -> Failover:
    made = Failover(SECONDS)
    assert made.connected("a", 3, 0.0)
    return made


def test_a_server_is_left_when_a_request_has_had_no_answer_for_so_long(failover: Failover) -> None:
    assert not failover.unanswered(WRITE, begun=1.0, now=2.5)
    assert not failover.unanswered(WRITE, begun=2.5, now=4.0)
    assert failover.unanswered(WRITE, begun=4.0, now=5.5), "counted from when the first was sent"


def test_an_answer_starts_the_clock_of_its_kind_afresh(failover: Failover) -> None:
    failover.unanswered(WRITE, begun=1.0, now=2.5)
    failover.answered(WRITE)
    assert not failover.unanswered(WRITE, begun=4.0, now=5.5)


def test_an_answer_of_another_kind_does_not(failover: Failover) -> None:
    failover.unanswered(WRITE, begun=1.0, now=2.5)
    failover.answered(READ)
    assert failover.unanswered(WRITE, begun=4.0, now=5.5)


def test_what_was_sent_to_the_server_before_says_nothing_about_this_one(failover: Failover) -> None:
    failover.leave("a")
    assert failover.connected("b", 3, 6.0)
    assert not failover.unanswered(WRITE, begun=5.9, now=11.0)
    assert not failover.unanswered(WRITE, begun=11.0, now=12.5)


def test_no_server_twice_until_all_others_were_tried(failover: Failover) -> None:
    """The cluster advertises its servers, so that each has two names; ``a`` is left."""
    failover.leave("a")
    assert not failover.connected("a", 6, 5.0), "the same server, by its other name"
    assert failover.connected("b", 6, 5.1)
    failover.leave("b")
    assert not failover.connected("b", 6, 10.0)
    assert not failover.connected("a", 6, 10.1)
    assert failover.connected("c", 6, 10.2)
    failover.leave("c")
    assert not any([failover.connected(name, 6, 15.0) for name in "abcabc"])  # noqa: C419
    assert failover.connected("a", 6, 15.1), "when all were tried the first is as good as any"


def test_when_all_were_tried_the_next_is_as_good_as_any(failover: Failover) -> None:
    for left, after in ("ab", "bc", "ca", "ab"):
        failover.leave(left)
        assert failover.connected(after, 3, 5.0)


def test_a_server_that_was_left_is_taken_again_once_another_has_answered(
    failover: Failover,
) -> None:
    failover.leave("a")
    failover.connected("b", 3, 5.0)
    failover.unanswered(WRITE, begun=5.0, now=6.5)
    failover.answered(WRITE)
    failover.leave("b")
    assert failover.connected("a", 3, 20.0)


def test_one_of_three_servers_that_works_is_found_within_fifteen_seconds() -> None:
    """Both others may greet a client and then answer nothing, which takes longest to find out."""
    request = nats_connection.Connection("nats://127.0.0.1:9", name="test").timeout
    longest = 1.25 * nats_connection.FAILOVER_SECONDS
    now = 0.0
    failover = Failover(longest)
    for server in ("a", "b"):
        assert failover.connected(server, 3, now)
        begun = now
        while not failover.unanswered(WRITE, begun, now):
            begun, now = now, now + request
        failover.leave(server)
        now += nats_connection.RECONNECT_PAUSE_SECONDS
    assert now <= 15
    assert failover.connected("c", 3, now)
    per_silent_server = nats_connection.CONNECT_SECONDS + nats_connection.RECONNECT_PAUSE_SECONDS
    assert longest + request + per_silent_server <= 15


@pytest.mark.parametrize(
    ("cluster", "has"),
    [
        ({}, True),
        ({"replicas": []}, True),
        ({"replicas": [{"active": 1}, {"active": 1}]}, True),
        ({"replicas": [{"active": 1}, {"active": 60_000_000_000}]}, True),
        ({"replicas": [{"active": 1}, {"active": 1, "offline": True}]}, True),
        ({"replicas": [{"active": 9_000_000_000}, {"active": 60_000_000_000}]}, False),
        ({"replicas": [{"active": 1, "offline": True}, {"active": 60_000_000_000}]}, False),
    ],
)
def test_a_leader_without_a_majority_is_recognised_by_the_replicas_it_reaches(
    cluster: dict[str, object],
    *,
    has: bool,
) -> None:
    assert leader_probe.has_majority(cluster) is has
