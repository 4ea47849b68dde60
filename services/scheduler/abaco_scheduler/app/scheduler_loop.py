"""The scheduler's loop: events and heartbeats in, decisions out, one step at a time.

The order within a step matters: a plan is made only after every event up to the scheduler's own
last one was applied, so that no decision is made twice.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from contextlib import AbstractContextManager, aclosing, suppress
from datetime import UTC, datetime

from abaco_jetstream import Connection
from abaco_jetstream.ports import Batch, EventLog, Heartbeats
from abaco_proto import events as ev
from abaco_proto.envelope import (
    Expected,
    Recorded,
    draft,
    service_principal,
    unrecognized_warning,
)
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import all_events_filter
from abaco_scheduler.app.scheduler_metrics import SchedulerMetrics
from abaco_scheduler.app.snapshot_manager import SnapshotManager
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.cluster_statistics import cluster_statistics
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.event_clock import EventClock
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import Policy
from abaco_telemetry.context import NO_SPANS, Spans, current_traceparent, log_context

logger = logging.getLogger(__name__)

SCHEDULER = service_principal(ev.Owner.SCHEDULER)

SPAN_NAMES: dict[type[ev.Event], str] = {
    ev.ExecutionAssigned: "schedule",
    ev.ExecutionHaltRequested: "halt",
}
"""The names of decisions in a trace; all others are ``abandon``."""

TICK_SECONDS = 1.0
"""The longest time between plans. Some decisions become due without an event: a host is lost, a
pause is over, an idle worker stops."""

REQUESTS_SECONDS = 0.1
"""The longest time that one plan appends worker requests; the next plan appends the rest."""

CONFLICT_PAUSE_SECONDS = 1.0
"""The time that a scheduler appends no worker requests after another one was faster."""

_REQUESTS = "requests"

CAUGHT_UP = "caught up at event %d; %d are not understood"
CONFLICT = (
    "decision not appended: another writer appended to the same history first. The next plan"
    " decides again; nothing to do: %s"
)
NOT_APPENDED = "decision not appended: %s. The next plan decides again"


class Scheduler:
    """One scheduler process. Any number may run: each decision gets into the log once."""

    def __init__(  # noqa: PLR0913 - a scheduler and its ports
        self,
        log: EventLog,
        heartbeats: Heartbeats,
        connection: Connection,
        policy: Policy,
        tenant: str,
        *,
        snapshots: SnapshotManager,
        metrics: SchedulerMetrics | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        """Start nothing yet. ``tenant`` is that of the hosts."""
        self._log = log
        self._heartbeats = heartbeats
        self._connection = connection
        self._policy = policy
        self._tenant = tenant
        self._snapshots = snapshots
        self._metrics = metrics or SchedulerMetrics()
        self._spans = spans
        self._cluster = Cluster()
        self._clock = EventClock(datetime.now(UTC), time.monotonic())
        self._inputs: asyncio.Queue[Batch | Heartbeat] = asyncio.Queue(maxsize=64)
        self._caught_up = False
        self._live = False
        self._last_own_sequence = 0
        self._no_requests_until = float("-inf")
        self._last_event: Recorded | None = None
        self._unrecognized = 0

    async def run(self) -> None:
        """Run until cancelled."""
        self._cluster = await self._snapshots.load(self._now().time)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._snapshots.run())
            tasks.create_task(self._follow_log())
            tasks.create_task(self._receive_heartbeats())
            await self._main_loop()

    async def update_metrics(self) -> None:
        """Set the gauges, which are computed only when the metrics are read."""
        self._metrics.update(cluster_statistics(self._cluster), self._cluster.sequence)

    # -- input -----------------------------------------------------------------------------------

    async def _follow_log(self) -> None:
        everything, after = [all_events_filter()], self._cluster.sequence
        async with aclosing(self._log.follow(everything, after=after)) as batches:
            async for batch in batches:
                await self._inputs.put(batch)

    async def _receive_heartbeats(self) -> None:
        async with aclosing(self._heartbeats.listen()) as heartbeats:
            async for heartbeat in heartbeats:
                await self._inputs.put(heartbeat)

    async def _main_loop(self) -> None:
        while True:
            await self._apply_inputs()
            if self._caught_up and self._cluster.sequence >= self._last_own_sequence:
                await self._append_all(self._plan())
                if self._last_event is not None:
                    now = self._now().time
                    self._snapshots.take_if_due(self._cluster, self._last_event, now)

    async def _apply_inputs(self) -> None:
        """Wait for an input, at most one tick; then apply all that have arrived."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                received = await self._inputs.get()
            self._apply(received)
        except asyncio.TimeoutError:
            return
        while not self._inputs.empty():
            self._apply(self._inputs.get_nowait())

    def _apply(self, received: Batch | Heartbeat) -> None:
        monotonic = time.monotonic()
        if isinstance(received, Heartbeat):
            self._cluster.record_heartbeat(received, self._tenant, monotonic)
            return
        for recorded in received.events:
            self._log_unrecognized(recorded)
            apply_event(self._cluster, self._clock.corrected(recorded, monotonic, live=self._live))
            self._last_event = recorded
        if received.caught_up and not self._live:
            self._live = True
            logger.info(CAUGHT_UP, self._cluster.sequence, self._unrecognized)
        self._caught_up = received.caught_up

    def _log_unrecognized(self, recorded: Recorded) -> None:
        """Warn of an event that cannot be decoded; those from before the start are only counted."""
        line = unrecognized_warning(recorded)
        if line is not None:
            self._unrecognized += 1
            logger.log(logging.WARNING if self._live else logging.DEBUG, "%s", line)

    # -- plan ------------------------------------------------------------------------------------

    def _now(self) -> Now:
        monotonic = time.monotonic()
        return Now(
            time=self._clock.at(monotonic),
            monotonic=monotonic,
            connected_since=self._connection.connected_since,
        )

    def _plan(self) -> list[Decision]:
        with self._metrics.plan_seconds.time():
            return plan(self._cluster, self._policy, self._now())

    # -- output ----------------------------------------------------------------------------------

    async def _append_all(self, decisions: list[Decision]) -> None:
        """Append decisions: those on one actor in order, different actors concurrently.

        All worker requests have the same condition, whatever their actor. So they are appended
        one after another: of concurrent ones only the first would be admitted.
        """
        groups: dict[str, list[Decision]] = defaultdict(list)
        for decision in decisions:
            groups[_group(decision)].append(decision)
        requests = groups.pop(_REQUESTS, [])
        if requests and time.monotonic() >= self._no_requests_until:
            groups[_REQUESTS] = _rotated_at_random(requests)
        await asyncio.gather(*map(self._append_in_order, groups.values()))

    async def _append_in_order(self, decisions: list[Decision]) -> None:
        heads: dict[str, int] = {}
        deadline = time.monotonic() + REQUESTS_SECONDS
        for decision in decisions:
            if _group(decision) == _REQUESTS and time.monotonic() > deadline:
                return
            with _log_context(decision):
                if not await self._try_append(decision, heads):
                    return

    async def _try_append(self, decision: Decision, heads: dict[str, int]) -> bool:
        """Append a decision; return False on a conflict, or if the log is unavailable."""
        try:
            with self._span(decision):
                sequence = await self._append(decision, heads)
        except Conflict:
            logger.info(CONFLICT, decision.event)
            if _group(decision) == _REQUESTS:
                self._no_requests_until = time.monotonic() + CONFLICT_PAUSE_SECONDS
            await self._restore_host_sequence(decision)
            return False
        except Unavailable as error:
            logger.debug(NOT_APPENDED, error)  # the connection logs the outage
            return False
        self._last_own_sequence = max(self._last_own_sequence, sequence)
        return True

    async def _append(self, decision: Decision, heads: dict[str, int]) -> int:
        """Append a decision; return its sequence.

        ``heads`` has the last sequence that this plan appended under each filter: later conditions
        on the same filter start from there.

        Raises:
            Conflict: another writer appended to the same history first.
            Unavailable: the log does not answer.
        """
        expected = decision.expected
        if expected is not None:
            head = heads.get(expected.filter, expected.sequence)
            expected = Expected(filter=expected.filter, sequence=head)
        event = draft(
            decision.event,
            tenant=decision.tenant,
            time=datetime.now(UTC),
            causation_id=decision.causation_id,
            correlation_id=decision.correlation_id,
            hops=decision.hops,
            principal=SCHEDULER,
            traceparent=current_traceparent(),
            position=expected.sequence if expected is not None else 0,
        )
        sequence = await self._log.append(event, expected=expected)
        if expected is not None:
            heads[expected.filter] = sequence
        logger.debug("decision appended as event %d: %s", sequence, decision.event)
        return sequence

    async def _restore_host_sequence(self, decision: Decision) -> None:
        """Read the head of a host's history, if the host was removed as long lost and is back."""
        event, expected = decision.event, decision.expected
        if not isinstance(event, ev.HostJoined) or expected is None or expected.sequence:
            return
        with suppress(Unavailable):
            last = await self._log.last(expected.filter)
            host = self._cluster.hosts.get(event.host_id)
            if last is not None and host is not None:
                host.sequence = max(host.sequence, last.sequence)

    def _span(self, decision: Decision) -> AbstractContextManager[object]:
        """Return the span from the message's acceptance on; none without a traced message."""
        name = SPAN_NAMES.get(type(decision.event), "abandon")
        return self._spans.span(name, parent=decision.traceparent, since=decision.trace_start)


def _rotated_at_random(requests: list[Decision]) -> list[Decision]:
    """Return the requests in their order, but starting with a random one: any order is correct.

    Two schedulers make the same plan. If they start with different requests, one of them gets a
    conflict at once and leaves the rest to the other; otherwise both would append all of them.
    """
    start = random.randrange(len(requests))  # noqa: S311 - no secret
    return requests[start:] + requests[:start]


def _group(decision: Decision) -> str:
    """Return the group of a decision: those of one group are appended one after another."""
    event = decision.event
    if isinstance(event, ev.WorkerRequested):
        return _REQUESTS
    return f"actor {decision.tenant} {getattr(event, 'actor_id', '')}"


def _log_context(decision: Decision) -> AbstractContextManager[None]:
    event = decision.event
    return log_context(
        tenant=decision.tenant,
        correlation_id=decision.correlation_id or "",
        actor_id=getattr(event, "actor_id", ""),
        execution_id=getattr(event, "execution_id", ""),
    )
