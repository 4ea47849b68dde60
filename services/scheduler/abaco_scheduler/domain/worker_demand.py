"""Demands for workers, and the order in which they are served: fairly between tenants first."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from heapq import heapify, heappop, heappush

import msgspec

from abaco_proto.envelope import EPOCH
from abaco_proto.state_keys import ActorKey
from abaco_scheduler.domain.policy import DemandPriority


class WorkerDemand(msgspec.Struct, frozen=True, order=True):
    """The demand of an actor for one more worker; those of a tenant are served in ascending order.

    ``worker_count`` is the number of workers that the actor has. Among equals the actor comes
    first that was last assigned a message the longest time ago: otherwise it could get back the
    very slot that it was preempted from, while others wait.
    """

    priority: DemandPriority
    worker_count: int
    last_assigned_at: datetime
    actor_id: str
    tenant: str

    @property
    def key(self) -> ActorKey:
        """The key of the actor in the cluster."""
        return self.tenant, self.actor_id


def in_fair_order(
    demands: Iterable[WorkerDemand],
    tenant_workers: Mapping[str, int],
    tenant_assigned_at: Mapping[str, datetime],
) -> Iterator[WorkerDemand]:
    """Return the demands of the tenant with the fewest workers first.

    Each counts as a worker of its tenant for those after it. Among equals the tenant comes first
    that was last assigned a message the longest time ago. Workers without messages, for
    ``min_workers``, come after those for the messages of all tenants.
    """
    queues: dict[str, deque[WorkerDemand]] = defaultdict(deque)
    for demand in sorted(demands):
        queues[demand.tenant].append(demand)
    workers = Counter(tenant_workers)

    def rank(tenant: str) -> tuple[bool, int, datetime, str]:
        is_minimum = queues[tenant][0].priority is DemandPriority.MIN_WORKERS
        return is_minimum, workers[tenant], tenant_assigned_at.get(tenant, EPOCH), tenant

    heap = [rank(tenant) for tenant in queues]
    heapify(heap)
    while heap:
        *_, tenant = heappop(heap)
        yield queues[tenant].popleft()
        workers[tenant] += 1
        if queues[tenant]:
            heappush(heap, rank(tenant))
