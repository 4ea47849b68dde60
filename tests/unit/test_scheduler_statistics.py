"""Cluster statistics: every count, and the bound on named actors."""

import builders as b
import readings
from abaco_proto import events as ev
from abaco_scheduler.app.scheduler_metrics import SchedulerMetrics
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.cluster_statistics import (
    MAX_NAMED_ACTORS,
    ClusterStatistics,
    cluster_statistics,
)


def counted(*events: ev.Event) -> ClusterStatistics:
    cluster = Cluster()
    for recorded in b.history(*events):
        apply_event(cluster, recorded)
    return cluster_statistics(cluster)


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
    assert (found.waiting, found.longest_queues) == (
        4,
        [
            ("default", "foo_0", 3),
            ("default", "bar_0", 1),
        ],
    )
    assert (found.running, found.abandoned) == (1, 0)
    assert found.actors == {"READY": 1, "SUBMITTED": 1}
    assert found.workers == {"BUSY": 1, "READY": 1, "REQUESTED": 1}
    assert (found.hosts, found.capacity) == ({"joined": 1, "away": 1}, 16)


def test_however_many_actors_only_the_longest_queues_are_named() -> None:
    actors = [f"a{n}_0" for n in range(3 * MAX_NAMED_ACTORS)]
    events: list[ev.Event] = [b.registered(actor_id) for actor_id in actors]
    for n, actor_id in enumerate(actors):
        events += [b.received(ordinal, actor_id) for ordinal in range(n % 7)]
    metrics = SchedulerMetrics()
    metrics.update(counted(*events), len(events))
    found = readings.of(metrics.registry)
    named = [labels for name, labels in found if name == "abaco_actor_messages_waiting"]
    assert len(named) == MAX_NAMED_ACTORS
    assert readings.value(found, "abaco_messages_waiting_most") == 6
    assert readings.value(found, "abaco_messages_waiting") == sum(n % 7 for n in range(len(actors)))
    metrics.update(counted(b.registered()), 1)
    found = readings.of(metrics.registry)
    assert not [name for name, _ in found if name == "abaco_actor_messages_waiting"]
    assert readings.value(found, "abaco_messages_waiting_most") == 0
    assert readings.value(found, "abaco_seats") == 0
