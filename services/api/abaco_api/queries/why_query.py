"""Reads what ``why`` needs: from Postgres, or from the log where Postgres does not answer."""

from collections.abc import Sequence
from contextlib import aclosing

from abaco_api.as_of.as_of_parameter import PastFinder
from abaco_api.as_of.full_fold import FullFold
from abaco_api.as_of.past_read_models import SHORT_EVENTS
from abaco_api.domain import views
from abaco_api.explain.execution_position import Backlog, HostCapacity, HostFold
from abaco_api.explain.explain_results import EffectResult, WhyResult
from abaco_api.explain.why import MOST, ExecutionHistory, rerun_effect
from abaco_api.explain.why_selection import why_events
from abaco_api.queries.past_rows import PastRows
from abaco_api.queries.read_models import ReadModels
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.actor import ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.execution import INITIAL
from abaco_proto.names import all_workers_filter, history_filter, hosts_filter


class WhyQuery:
    """Explains executions of one tenant, as of the head of the log."""

    def __init__(self, past: PastFinder, rows: PastRows, models: ReadModels, tenant: str) -> None:
        self._past = past
        self._rows = rows
        self._models = models
        self._tenant = tenant

    async def explain(self, actor_id: str, ordinal: int) -> WhyResult:
        """Why an execution is where it is.

        Raises:
            Unknown: there is no such actor or execution.
            Unavailable: the log does not answer.
        """
        head = await self._past.head()
        if await self._past.indexed(head) is not None:
            try:
                return await self._indexed(actor_id, ordinal, head)
            except Unavailable:
                pass
        return await self._folded(actor_id, ordinal, head)

    async def _indexed(self, actor_id: str, ordinal: int, head: int) -> WhyResult:
        history = ExecutionHistory(self._tenant, actor_id, ordinal)
        is_long = await self._rows.is_longer(actor_id, head, SHORT_EVENTS)
        live = await self._rows.live_workers(actor_id, head) if is_long else None
        selected = None if live is None else await self._selected(actor_id, ordinal, head, live)
        if selected is None:
            live = None
            await self._take_all(history, self._past.fold_to(head))
            backlog = history.backlog
        else:
            for recorded in selected:
                history.take(recorded)
            row = await self._rows.backlog(actor_id, ordinal)
            backlog = Backlog(row["ahead"], row["running"])
            _check(history, actor_id, ordinal)
            history.reruns[:] = await self._reruns(actor_id, history.execution.execution_id)
        _check(history, actor_id, ordinal)
        hosts = HostFold()
        for recorded in await self._rows.host_events():
            hosts.take(recorded)
        capacity = hosts.result(await self._rows.live_workers_by_host())
        return history.answer(capacity, await self._caused(history), backlog, live)

    async def _selected(
        self, actor_id: str, ordinal: int, head: int, live: Sequence[str]
    ) -> Sequence[Recorded] | None:
        """The events that are enough; None when one of them cannot be read."""
        found = await why_events(self._rows, head, actor_id, ordinal, live)
        unread = any(isinstance(recorded.event, ev.Unrecognized) for recorded in found)
        return None if unread else found

    async def _folded(self, actor_id: str, ordinal: int, head: int) -> WhyResult:
        fold = self._past.fold_to(head)
        history = ExecutionHistory(self._tenant, actor_id, ordinal)
        await self._take_all(history, fold)
        _check(history, actor_id, ordinal)
        capacity = HostCapacity({}, {})
        if not history.execution.ended:
            capacity = await self._folded_capacity(fold)
        return history.answer(capacity, await self._caused(history), history.backlog)

    async def _folded_capacity(self, fold: FullFold) -> HostCapacity:
        hosts = HostFold()
        filters = [hosts_filter("*"), all_workers_filter("*")]
        async with aclosing(fold.events(filters)) as events:
            async for recorded in events:
                hosts.take(recorded)
        return hosts.result()

    async def _take_all(self, history: ExecutionHistory, fold: FullFold) -> None:
        filters = [history_filter(self._tenant, history.actor_id)]
        async with aclosing(fold.events(filters)) as events:
            async for recorded in events:
                history.take(recorded)

    async def _reruns(self, actor_id: str, execution_id: str) -> list[EffectResult]:
        rows = await self._rows.reruns(actor_id, execution_id, MOST)
        return [
            rerun_effect(actor_id, row["execution_id"], row["message_sequence"]) for row in rows
        ]

    async def _caused(self, history: ExecutionHistory) -> list[EffectResult] | None:
        """The messages that subscriptions made of its events; None while Postgres is away."""
        after = history.execution.message_sequence
        try:
            rows = await self._models.caused(history.event_ids, after, MOST)
        except Unavailable:
            return None
        effects = []
        for row in rows:
            event = views.event(row)
            execution_id = event.id.removesuffix(".received")
            effects.append(
                EffectResult(
                    seq=event.seq,
                    execution_id=execution_id,
                    actor_id=event.actor_id,
                    kind="subscription",
                    says=f"Its {event.causation_id.rpartition('_')[2]} became {execution_id}.",
                )
            )
        return effects


def _check(history: ExecutionHistory, actor_id: str, ordinal: int) -> None:
    if history.actor.status is ActorStatus.UNREGISTERED:
        raise Unknown(f"actor_id: there is no actor {actor_id!r}")
    if history.execution is INITIAL:
        what = f"{actor_id} has no execution {names.execution_id(actor_id, ordinal)!r}"
        raise Unknown(f"execution_id: {what}")
