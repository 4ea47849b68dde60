"""The shell around the plan: events and heartbeats in, decisions out, one step after another.

The order of a step matters: a plan is made only on a state that holds every event in the log up
to the scheduler's own last one, so that no decision is made twice.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from contextlib import AbstractContextManager, aclosing, suppress
from datetime import UTC, datetime

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft, not_understood
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.jetstream import Connection
from abaco_proto.log import Batch, EventLog, Expected, Heartbeat, Heartbeats
from abaco_proto.subjects import all_events_filter
from abaco_scheduler.census import census
from abaco_scheduler.clock import Clock
from abaco_scheduler.cluster import Cluster, observe
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.keeper import Keeper
from abaco_scheduler.metrics import Metrics
from abaco_scheduler.plan import plan
from abaco_scheduler.policy import Policy
from abaco_telemetry.about import about
from abaco_telemetry.spans import OFF, Spans, current

logger = logging.getLogger(__name__)

STEPS: dict[type[ev.Event], str] = {
    ev.ExecutionAssigned: "schedule",
    ev.ExecutionHaltRequested: "halt",
}
"""The names of decisions in a trace."""

TICK_SECONDS = 1.0
"""Time alone changes some decisions: a silent host, a pause that is over, an idle worker."""


REQUESTS_SECONDS = 0.1
"""How long one plan appends requests for workers; the rest are in the next plan."""

YIELD_SECONDS = 1.0
"""How long a scheduler leaves requests for workers to another one that was faster."""

_REQUESTS = "requests"


class Scheduler:
    """One scheduler process. Any number may run: the log lets one of equal decisions in."""

    def __init__(  # noqa: PLR0913 - a scheduler and its ports
        self,
        log: EventLog,
        heartbeats: Heartbeats,
        connection: Connection,
        policy: Policy,
        tenant: str,
        *,
        keeper: Keeper,
        metrics: Metrics | None = None,
        spans: Spans = OFF,
    ) -> None:
        """Nothing runs yet."""
        self._log = log
        self._heartbeats = heartbeats
        self._connection = connection
        self._policy = policy
        self._tenant = tenant
        self._keeper = keeper
        self._metrics = metrics or Metrics()
        self._spans = spans
        self._cluster = Cluster()
        self._clock = Clock(datetime.now(UTC), time.monotonic())
        self._inputs: asyncio.Queue[Batch | Heartbeat] = asyncio.Queue(maxsize=64)
        self._caught_up = False
        self._live = False
        self._own_last = 0
        self._requests_after = float("-inf")
        self._last: Recorded | None = None
        self._not_understood = 0

    async def run(self) -> None:
        """Run until cancelled."""
        self._cluster = await self._keeper.newest(self._now().time)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keeper.run())
            tasks.create_task(self._follow())
            tasks.create_task(self._listen())
            await self._main_loop()

    async def count(self) -> None:
        """Bring up to date what is counted only for those who ask."""
        self._metrics.take(census(self._cluster), self._cluster.sequence)

    async def _follow(self) -> None:
        everything, after = [all_events_filter()], self._cluster.sequence
        async with aclosing(self._log.follow(everything, after=after)) as batches:
            async for batch in batches:
                await self._inputs.put(batch)

    async def _listen(self) -> None:
        async with aclosing(self._heartbeats.listen()) as heartbeats:
            async for heartbeat in heartbeats:
                await self._inputs.put(heartbeat)

    async def _main_loop(self) -> None:
        while True:
            await self._take_in()
            if self._caught_up and self._cluster.sequence >= self._own_last:
                await self._act(self._plan())
                if self._last is not None:
                    self._keeper.look(self._cluster, self._last, self._now().time)

    async def _take_in(self) -> None:
        """Wait for something to happen, or a tick; then take in all that has happened."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                given = await self._inputs.get()
            self._observe(given)
        except asyncio.TimeoutError:
            return
        while not self._inputs.empty():
            self._observe(self._inputs.get_nowait())

    def _observe(self, given: Batch | Heartbeat) -> None:
        if isinstance(given, Heartbeat):
            self._cluster.heard(given, self._tenant, time.monotonic())
            return
        monotonic = time.monotonic()
        for recorded in given.events:
            self._say_of_poison(recorded)
            observe(self._cluster, self._clock.heard(recorded, monotonic, live=self._live))
            self._last = recorded
        if given.caught_up and not self._live:
            self._live = True
            at, passed_over = self._cluster.sequence, self._not_understood
            logger.info("caught up at event %d; %d are not understood", at, passed_over)
        self._caught_up = given.caught_up

    def _say_of_poison(self, recorded: Recorded) -> None:
        """What nobody understands is said once; what history holds of it, in one number."""
        said = not_understood(recorded)
        if said is not None:
            self._not_understood += 1
            logger.log(logging.WARNING if self._live else logging.DEBUG, "%s", said)

    def _now(self) -> Now:
        monotonic = time.monotonic()
        return Now(
            time=self._clock.at(monotonic),
            monotonic=monotonic,
            listening_since=self._connection.connected_since,
        )

    def _plan(self) -> list[Decision]:
        with self._metrics.plans.time():
            return plan(self._cluster, self._policy, self._now())

    async def _act(self, decisions: list[Decision]) -> None:
        """Append decisions: those on one actor in their order, actors side by side.

        All requests for workers rest on one condition, whatever actor they are for. So they are
        appended one after another: side by side, only the first would hold.
        """
        groups: dict[str, list[Decision]] = defaultdict(list)
        for decision in decisions:
            groups[_group(decision)].append(decision)
        requests = groups.pop(_REQUESTS, [])
        if requests and time.monotonic() >= self._requests_after:
            groups[_REQUESTS] = _rotated(requests)
        await asyncio.gather(*map(self._append_in_order, groups.values()))

    async def _append_in_order(self, decisions: list[Decision]) -> None:
        tips: dict[str, int] = {}
        until = time.monotonic() + REQUESTS_SECONDS
        for decision in decisions:
            if _group(decision) == _REQUESTS and time.monotonic() > until:
                return
            with _about(decision):
                if not await self._is_appended(decision, tips):
                    return

    async def _is_appended(self, decision: Decision, tips: dict[str, int]) -> bool:
        """Append one decision, unless another writer was faster or the log is away."""
        try:
            with self._span(decision):
                sequence = await self._append(decision, tips)
        except Conflict:
            logger.info("overtaken: %s", decision.event)
            if _group(decision) == _REQUESTS:
                self._requests_after = time.monotonic() + YIELD_SECONDS
            await self._look_up_host(decision)
            return False
        except Unavailable as error:
            logger.debug("decision not recorded: %s", error)  # the connection says it
            return False
        self._own_last = max(self._own_last, sequence)
        return True

    async def _look_up_host(self, decision: Decision) -> None:
        """A host that was away for so long that it was forgotten has a history all the same."""
        event, expected = decision.event, decision.expected
        if not isinstance(event, ev.HostJoined) or expected is None or expected.sequence:
            return
        with suppress(Unavailable):
            last = await self._log.last(expected.filter)
            host = self._cluster.hosts.get(event.host_id)
            if last is not None and host is not None:
                host.sequence = max(host.sequence, last.sequence)

    def _span(self, decision: Decision) -> AbstractContextManager[object]:
        """The step that began when the message was accepted; other decisions are in no trace."""
        name = STEPS.get(type(decision.event), "abandon")
        return self._spans.span(name, parent=decision.traceparent, since=decision.since)

    async def _append(self, decision: Decision, tips: dict[str, int]) -> int:
        """Append one decision; a condition moves on with what this plan appended before it."""
        expected = decision.expected
        if expected is not None:
            at = tips.get(expected.filter, expected.sequence)
            expected = Expected(filter=expected.filter, sequence=at)
        wish = draft(
            decision.event,
            tenant=decision.tenant,
            time=datetime.now(UTC),
            causation_id=decision.causation_id,
            correlation_id=decision.correlation_id,
            hops=decision.hops,
            traceparent=current(),
            position=expected.sequence if expected is not None else 0,
        )
        sequence = await self._log.append(wish, expected=expected)
        if expected is not None:
            tips[expected.filter] = sequence
        logger.debug("%d %s", sequence, decision.event)
        return sequence


def _rotated(requests: list[Decision]) -> list[Decision]:
    """The requests of one plan, from any of them on: each has its slot, so their order is free.

    Two schedulers make the same plan. Beginning with different requests, one of them conflicts at
    once and leaves the rest to the other; in the same order both would append all of them.
    """
    begin = random.randrange(len(requests))  # noqa: S311 - no secret
    return requests[begin:] + requests[:begin]


def _group(decision: Decision) -> str:
    """Decisions of one group are appended one after another."""
    event = decision.event
    if isinstance(event, ev.WorkerRequested):
        return _REQUESTS
    return f"actor {getattr(event, 'actor_id', '')}"


def _about(decision: Decision) -> AbstractContextManager[None]:
    event = decision.event
    return about(
        correlation_id=decision.correlation_id or "",
        actor_id=getattr(event, "actor_id", ""),
        execution_id=getattr(event, "execution_id", ""),
    )
