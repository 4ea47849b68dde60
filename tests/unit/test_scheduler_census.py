"""How many there are of everything, and that no more than some are named."""

import builders as b
import readings
from abaco_proto import events as ev
from abaco_scheduler.census import NAMED_ACTORS, Census, census
from abaco_scheduler.cluster import Cluster, observe
from abaco_scheduler.metrics import Metrics


def counted(*events: ev.Event) -> Census:
    cluster = Cluster()
    for recorded in b.history(*events):
        observe(cluster, recorded)
    return census(cluster)


def test_everything_is_counted_once() -> None:
    found = counted(
        b.joined("h1", 16),
        b.joined("h2", 8),
        ev.HostLost(host_id="h2", reason="silence"),
        b.registered("foo_0"),
        b.registered("bar_0"),
        *(b.requested(n) for n in range(3)),
        b.ready(0),
        b.ready(1),
        *(b.received(n) for n in range(4)),
        b.received(0, "bar_0"),
        b.assigned(0),
    )
    assert (found.waiting, found.longest) == (4, [("foo_0", 3), ("bar_0", 1)])
    assert (found.running, found.abandoned) == (1, 0)
    assert found.actors == {"READY": 1, "SUBMITTED": 1}
    assert found.seats == {"BUSY": 1, "READY": 1, "REQUESTED": 1}
    assert (found.hosts, found.capacity) == ({"joined": 1, "away": 1}, 16)


def test_however_many_actors_only_the_longest_queues_are_named() -> None:
    actors = [f"a{n}_0" for n in range(3 * NAMED_ACTORS)]
    events: list[ev.Event] = [b.registered(actor_id) for actor_id in actors]
    for n, actor_id in enumerate(actors):
        events += [b.received(ordinal, actor_id) for ordinal in range(n % 7)]
    metrics = Metrics()
    metrics.take(counted(*events), len(events))
    found = readings.of(metrics.catalogue)
    named = [labels for name, labels in found if name == "abaco_actor_messages_waiting"]
    assert len(named) == NAMED_ACTORS
    assert readings.value(found, "abaco_messages_waiting_most") == 6
    assert readings.value(found, "abaco_messages_waiting") == sum(n % 7 for n in range(len(actors)))
    metrics.take(counted(b.registered()), 1)
    found = readings.of(metrics.catalogue)
    assert not [name for name, _ in found if name == "abaco_actor_messages_waiting"]
    assert readings.value(found, "abaco_messages_waiting_most") == 0
    assert readings.value(found, "abaco_seats") == 0
