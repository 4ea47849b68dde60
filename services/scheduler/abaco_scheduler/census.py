"""A census: how many there are of everything, for those who watch. No decision depends on it."""

from collections import Counter
from heapq import nlargest

import msgspec

from abaco_scheduler.cluster import Cluster

NAMED_ACTORS = 20
"""However many actors there are, so many are named: a label's values must be few."""


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Counts. ``longest`` are the actors with the most messages that wait, and how many."""

    waiting: int
    longest: list[tuple[str, int]]
    running: int
    abandoned: int
    actors: Counter[str]
    seats: Counter[str]
    hosts: Counter[str]
    capacity: int
    unsettled: int


def census(cluster: Cluster) -> Census:
    """Count everything there is: as much work as there are actors."""
    desks = cluster.desks.values()
    backlogs = [(desk.actor.actor_id, desk.inbox.backlog) for desk in desks if desk.inbox.backlog]
    hosts = cluster.hosts.values()
    return Census(
        waiting=sum(count for _, count in backlogs),
        longest=nlargest(NAMED_ACTORS, backlogs, key=lambda actor: actor[1]),
        running=sum(len(desk.inbox.running) for desk in desks),
        abandoned=sum(len(desk.inbox.abandoned) for desk in desks),
        actors=Counter(str(desk.actor.status) for desk in desks),
        seats=Counter(str(worker.status) for desk in desks for worker in desk.workers.values()),
        hosts=Counter("joined" if host.joined else "away" for host in hosts),
        capacity=sum(host.capacity for host in hosts if host.joined),
        unsettled=len(cluster.unsettled),
    )
