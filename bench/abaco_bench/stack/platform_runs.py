"""Our own paths, one message at a time: a pool hit, and a start from nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count

from abaco_bench.load.subscriber import ExecutionRecord
from abaco_bench.results.figures import median
from abaco_bench.results.report import number
from abaco_bench.stack.stage import Posted, Stage
from abaco_proto.envelope import parse_time
from images import QUICK

REFILL_SECONDS = 5.0
NEVER_SEEN_SECONDS = 0.3
WORKERS = 1

READY_KINDS = ("sandbox", "pool")
"""How a run starts that does not wait for a container: in a sandbox, or in one of its own."""


FINISHED_TO_GET = "finished to GET"
"""From the event to the first answer that shows it."""


class PoolRuns:
    """Messages to an actor with one worker whose sandbox is ready."""

    def __init__(self, stage: Stage, isolation: str) -> None:
        """Register the actor, and wait until it is ready."""
        self._stage = stage
        self._isolation = isolation
        self._actor_id = stage.register(
            f"bench-pool-{isolation}", QUICK, least=WORKERS, most=WORKERS, isolation=isolation
        )
        self._timeout, self._seen = REFILL_SECONDS, False
        self.kinds: Counter[str] = Counter()
        self.steps: list[dict[str, float]] = []
        stage.wait_ready(self._actor_id)

    def run(self) -> dict[str, float] | None:
        """The times of a pool hit; None when the run was none. Ends when the engine is quiet."""
        self._settle()
        self._stage.warm(self._actor_id)
        sent = self._stage.post(self._actor_id, "x")
        record = self._stage.finished(sent)
        visible = self._stage.visible(self._actor_id, sent)  # not before: it takes time of the api
        self._settle()
        self.kinds[kind(record)] += 1
        if kind(record) not in READY_KINDS:
            return None
        self.steps.append(steps(record))
        found = times(sent, record)
        found[FINISHED_TO_GET] = max(0.0, visible - record.finished_seen) * 1e3
        return found

    def note(self) -> str:
        """What kind the runs were, and where their time went."""
        summary = f"pool, {self._isolation}: start_kind {_counted(self.kinds)}"
        if not self.steps:
            return f"{summary}; no sandbox was waiting"
        found = ", ".join(f"{name} {number(at)}" for name, at in median_steps(self.steps).items())
        return f"{summary}; ms from acceptance at the median: {found}"

    def _settle(self) -> None:
        """Until the next sandbox waits; where none ever did, that is not waited for again."""
        if self._stage.wait_waiting(self._actor_id, WORKERS, self._timeout):
            self._seen, self._timeout = True, REFILL_SECONDS
        elif not self._seen:
            self._timeout = NEVER_SEEN_SECONDS


class ColdRuns:
    """Messages to actors that have no worker and no container: scaled to zero."""

    def __init__(self, stage: Stage, isolation: str) -> None:
        self._stage = stage
        self._isolation = isolation
        self._numbers = count()
        self.kinds: Counter[str] = Counter()

    def run(self) -> dict[str, float]:
        """The times of the first message to a new actor; the actor is gone afterwards."""
        name = f"bench-cold-{self._isolation}-{next(self._numbers)}"
        actor_id = self._stage.register(name, QUICK, least=0, most=1, isolation=self._isolation)
        sent = self._stage.post(actor_id, "x")
        record = self._stage.finished(sent)
        self.kinds[kind(record)] += 1
        self._stage.delete(actor_id)
        return times(sent, record)

    def note(self) -> str:
        """What kind the runs were: a sandbox may be ready before the message is assigned."""
        return f"cold, {self._isolation}: start_kind {_counted(self.kinds)}"


def kind(record: ExecutionRecord) -> str:
    """How a run started: ``sandbox``, ``pool`` or ``cold``."""
    return str(record.started.start_kind) if record.started is not None else ""


def times(sent: Posted, record: ExecutionRecord) -> dict[str, float]:
    """Ms from the POST and from acceptance.

    A message is accepted once it is in the log, which is when a subscriber sees it there, just as
    it sees the end; the first output's time is the launcher's. All clocks are this machine's.
    """
    assert record.finished is not None
    accepted = record.received_seen
    found = {"POST to answer": sent.answered - sent.posted}
    if output := _seconds(record.finished.first_output_at):
        found["accepted to first output"] = output - accepted
        found["POST to first output"] = output - sent.posted
    found["accepted to finished"] = record.finished_seen - accepted
    found["POST to finished"] = record.finished_seen - sent.posted
    return {name: seconds * 1e3 for name, seconds in found.items()}


def steps(record: ExecutionRecord) -> dict[str, float]:
    """Ms from acceptance to each step on the way, as the events say, so far as they do."""
    assert record.received is not None
    assert record.finished is not None
    final = record.finished.final_state
    times = {
        "assigned": record.assigned.time.timestamp() if record.assigned else 0.0,
        "taken": _seconds(record.started.taken_at if record.started else ""),
        "started": _seconds(final.started_at),
        "first output": _seconds(record.finished.first_output_at),
        "ended": _seconds(final.finished_at),
        "seen finished": record.finished_seen,
    }
    accepted = record.received_seen
    return {name: (at - accepted) * 1e3 for name, at in times.items() if at}


def median_steps(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each step's median, in the order of time."""
    samples: dict[str, list[float]] = {}
    for timeline in found:
        for name, at in timeline.items():
            samples.setdefault(name, []).append(at)
    return dict(sorted(((n, median(s)) for n, s in samples.items()), key=lambda step: step[1]))


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "none"


def _seconds(text: str) -> float:
    """Since 1970; 0 for no time."""
    return parse_time(text).timestamp() if text else 0.0
