"""The scheduler's metrics."""

from abaco_proto.actor import ActorStatus
from abaco_proto.worker import LIVE
from abaco_scheduler.domain.cluster_statistics import MAX_NAMED_ACTORS, ClusterStatistics
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry

ACTOR_STATUSES = (ActorStatus.SUBMITTED, ActorStatus.READY, ActorStatus.ERROR)
PRESENCE = ("joined", "away")


class SchedulerMetrics:
    """All metrics of one scheduler process."""

    def __init__(self) -> None:
        """Register all metrics in a new catalogue."""
        self.registry = MetricRegistry()
        self.log = LogMetrics(self.registry)
        gauge = self.registry.gauge
        self.plan_seconds = self.registry.histogram("abaco_plan_seconds", "Time to compute a plan.")
        self.waiting = gauge("abaco_messages_waiting", "Messages that no worker has.")
        self.waiting_by_actor = gauge(
            "abaco_actor_messages_waiting",
            f"Messages that no worker has, of the {MAX_NAMED_ACTORS} actors with the most; other"
            " actors have no series.",
            *("tenant", "actor_id"),
        )
        self.waiting_most = gauge(
            "abaco_messages_waiting_most",
            "Messages that no worker has, of the actor with the most.",
        )
        self.running = gauge("abaco_executions_running", "Executions that a worker has.")
        self.abandoned = gauge(
            "abaco_executions_abandoned", "Executions whose attempts are used up."
        )
        self.actors = gauge("abaco_actors", "Actors.", "status")
        self.workers = gauge("abaco_seats", "Workers that occupy a slot.", "status")
        self.hosts = gauge("abaco_hosts", "Hosts known to the scheduler.", "presence")
        self.capacity = gauge("abaco_capacity_seats", "Slots on the hosts that have joined.")
        self.unreconciled = gauge("abaco_actors_unsettled", "Actors that the next plan examines.")
        self.position = gauge(
            "abaco_scheduler_position", "The sequence of the last event that was applied."
        )

    def update(self, statistics: ClusterStatistics, position: int) -> None:
        """Set all gauges; ``position`` is the sequence of the last applied event."""
        self.waiting.set(statistics.waiting)
        self.waiting_most.set(max((count for *_, count in statistics.longest_queues), default=0))
        self.waiting_by_actor.clear()
        for tenant, actor_id, count in statistics.longest_queues:
            self.waiting_by_actor.labels(tenant, actor_id).set(count)
        self.running.set(statistics.running)
        self.abandoned.set(statistics.abandoned)
        for actor_status in ACTOR_STATUSES:
            self.actors.labels(actor_status).set(statistics.actors[actor_status])
        for status in sorted(LIVE):
            self.workers.labels(status).set(statistics.workers[status])
        for presence in PRESENCE:
            self.hosts.labels(presence).set(statistics.hosts[presence])
        self.capacity.set(statistics.capacity)
        self.unreconciled.set(statistics.unreconciled)
        self.position.set(position)
