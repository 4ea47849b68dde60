"""Cluster statistics: counts for metrics. No decision depends on them."""

from collections import Counter
from heapq import nlargest

import msgspec

from abaco_scheduler.domain.cluster import Cluster

MAX_NAMED_ACTORS = 20
"""At most this many actors have a series of their own, because labels must have few values."""


class ClusterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a cluster.

    ``longest_queues`` has (tenant, actor id, waiting messages) of the actors with the most waiting
    messages, the longest first. ``actors`` and ``workers`` are keyed by status, ``hosts`` by
    ``joined`` or ``away``. ``capacity`` is in slots. ``unreconciled`` counts the actors that the
    next plan examines.
    """

    waiting: int
    longest_queues: list[tuple[str, str, int]]
    running: int
    abandoned: int
    actors: Counter[str]
    workers: Counter[str]
    hosts: Counter[str]
    capacity: int
    unreconciled: int


def cluster_statistics(cluster: Cluster) -> ClusterStatistics:
    """Count everything in the cluster. The cost is proportional to the number of actors."""
    states = cluster.actors.values()
    queues = [(*state.key, state.inbox.backlog) for state in states]
    hosts = cluster.hosts.values()
    return ClusterStatistics(
        waiting=sum(count for *_, count in queues),
        longest_queues=nlargest(
            MAX_NAMED_ACTORS, (queue for queue in queues if queue[2]), key=lambda queue: queue[2]
        ),
        running=sum(len(state.inbox.running) for state in states),
        abandoned=sum(len(state.inbox.abandoned) for state in states),
        actors=Counter(str(state.actor.status) for state in states),
        workers=Counter(
            str(worker.status) for state in states for worker in state.workers.values()
        ),
        hosts=Counter("joined" if host.joined else "away" for host in hosts),
        capacity=sum(host.capacity for host in hosts if host.joined),
        unreconciled=len(cluster.unreconciled),
    )
