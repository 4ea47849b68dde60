"""What the scheduler counts."""

from abaco_proto.actor import ActorStatus
from abaco_proto.worker import LIVE
from abaco_scheduler.census import NAMED_ACTORS, Census
from abaco_telemetry.catalogue import Catalogue
from abaco_telemetry.event_log import LogMetrics

EXISTING = (ActorStatus.SUBMITTED, ActorStatus.READY, ActorStatus.ERROR)
PRESENCE = ("joined", "away")


class Metrics:
    """All metrics of one scheduler process."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.catalogue = Catalogue()
        self.log = LogMetrics(self.catalogue)
        gauge = self.catalogue.gauge
        self.plans = self.catalogue.histogram("abaco_plan_seconds", "Time that making a plan took.")
        self.waiting = gauge("abaco_messages_waiting", "Messages that no worker has.")
        self.longest = gauge(
            "abaco_actor_messages_waiting",
            f"The same of the {NAMED_ACTORS} actors that have the most; the others have no series.",
            "actor_id",
        )
        self.most = gauge("abaco_messages_waiting_most", "The same of the one that has the most.")
        self.running = gauge("abaco_executions_running", "Executions that a worker has.")
        self.abandoned = gauge(
            "abaco_executions_abandoned", "Executions whose attempts are used up."
        )
        self.actors = gauge("abaco_actors", "Actors.", "status")
        self.seats = gauge("abaco_seats", "Workers that take a seat.", "status")
        self.hosts = gauge("abaco_hosts", "Hosts that were ever heard of.", "presence")
        self.capacity = gauge("abaco_capacity_seats", "Seats on the hosts that are there.")
        self.unsettled = gauge("abaco_actors_unsettled", "Actors that may need a decision.")
        self.position = gauge("abaco_scheduler_position", "The last event that was taken in.")

    def take(self, census: Census, position: int) -> None:
        """Show these counts from now on."""
        self.waiting.set(census.waiting)
        self.most.set(max((count for _, count in census.longest), default=0))
        self.longest.clear()
        for actor_id, count in census.longest:
            self.longest.labels(actor_id).set(count)
        self.running.set(census.running)
        self.abandoned.set(census.abandoned)
        for actor_status in EXISTING:
            self.actors.labels(actor_status).set(census.actors[actor_status])
        for status in sorted(LIVE):
            self.seats.labels(status).set(census.seats[status])
        for presence in PRESENCE:
            self.hosts.labels(presence).set(census.hosts[presence])
        self.capacity.set(census.capacity)
        self.unsettled.set(census.unsettled)
        self.position.set(position)
