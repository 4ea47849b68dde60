"""Our own paths, one message at a time: a pool hit, and a start from nothing."""

from itertools import count

from abaco_bench.stage import Posted, Stage
from abaco_bench.subscriber import Told
from abaco_proto.envelope import parse_time
from images import QUICK

REFILL_SECONDS = 5.0
NEVER_SEEN_SECONDS = 0.3
SEATS = 1


class PoolRuns:
    """Messages to an actor whose one seat has a sandbox waiting."""

    def __init__(self, stage: Stage) -> None:
        """Register the actor, and wait until it is ready."""
        self._stage = stage
        self._actor_id = stage.register("bench-pool", QUICK, least=SEATS, most=SEATS)
        self._patience, self._seen = REFILL_SECONDS, False
        stage.wait_ready(self._actor_id)

    def run(self) -> dict[str, float] | None:
        """The times of a pool hit; None when the run was none. Ends when the engine is quiet."""
        self._settle()
        self._stage.warm(self._actor_id)
        sent = self._stage.post(self._actor_id, "x")
        told = self._stage.finished(sent)
        found = times(sent, told) if kind(told) == "pool" else None
        self._settle()
        return found

    def _settle(self) -> None:
        """Until the next sandbox waits; where none ever did, that is not waited for again."""
        if self._stage.wait_waiting(self._actor_id, SEATS, self._patience):
            self._seen, self._patience = True, REFILL_SECONDS
        elif not self._seen:
            self._patience = NEVER_SEEN_SECONDS


class ColdRuns:
    """Messages to actors that have no worker and no container: scaled to zero."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._numbers = count()
        self.kinds: list[str] = []

    def run(self) -> dict[str, float]:
        """The times of the first message to a new actor; the actor is gone afterwards."""
        actor_id = self._stage.register(f"bench-cold-{next(self._numbers)}", QUICK, least=0, most=1)
        sent = self._stage.post(actor_id, "x")
        told = self._stage.finished(sent)
        self.kinds.append(kind(told))
        self._stage.delete(actor_id)
        return times(sent, told)


def kind(told: Told) -> str:
    """How a run started: ``pool`` or ``cold``."""
    return str(told.started.start_kind) if told.started is not None else ""


def times(sent: Posted, told: Told) -> dict[str, float]:
    """Ms from the POST and from acceptance.

    A message is accepted when the API decided so (the time in the event, before it is on disk);
    the first output's time is the launcher's. All clocks are this machine's.
    """
    assert told.received is not None
    assert told.finished is not None
    accepted = told.received.time.timestamp()
    found = {
        "POST to answer": sent.answered - sent.posted,
        "accepted to finished": told.finished_seen - accepted,
        "POST to finished": told.finished_seen - sent.posted,
    }
    if told.finished.first_output_at:
        output = parse_time(told.finished.first_output_at).timestamp()
        found["accepted to first output"] = output - accepted
        found["POST to first output"] = output - sent.posted
    return {name: seconds * 1e3 for name, seconds in found.items()}
