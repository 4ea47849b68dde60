"""Which events ``why`` needs: few, however long the actor's history. Pure."""

from collections.abc import Sequence

from abaco_api.as_of.event_selection import CopiedEvents, EventSelection
from abaco_api.explain.why import MOST, WHILE_WAITING
from abaco_proto import execution
from abaco_proto.envelope import Recorded
from abaco_proto.execution import ExecutionStatus


async def why_events(
    events: CopiedEvents, sequence: int, actor_id: str, ordinal: int, live: Sequence[str]
) -> list[Recorded]:
    """The events up to a sequence that explain where an execution is; ``live`` are worker ids.

    These are its own, those that make its actor and the live workers what they are, those of the
    workers that had it, and the latest of what happened to the actor while it waited.
    """
    selection = EventSelection(events, sequence)
    own = await selection.of_executions(actor_id, [ordinal])
    had_it = {getattr(recorded.event, "worker_id", None) for recorded in own} - {None}
    found = [
        *own,
        *await selection.of_actor(actor_id),
        *await selection.of_workers(actor_id, sorted({*live, *map(str, had_it)})),
        *await _while_waiting(events, sequence, actor_id, own),
    ]
    by_sequence = {recorded.sequence: recorded for recorded in found}
    return [by_sequence[key] for key in sorted(by_sequence)]


async def _while_waiting(
    events: CopiedEvents, sequence: int, actor_id: str, own: Sequence[Recorded]
) -> list[Recorded]:
    found: list[Recorded] = []
    for begin, end in reversed(_waits(own, sequence)):
        limit = MOST - len(found)
        if limit:
            found += await events.before(actor_id, WHILE_WAITING, begin, end, limit)
    return found


def _waits(own: Sequence[Recorded], sequence: int) -> list[tuple[int, int]]:
    """From which event to which an execution was submitted, and no worker had it."""
    state, begin, waits = execution.INITIAL, 0, []
    for recorded in own:
        before, state = state, execution.evolve(state, recorded)
        is_submitted = state.status is ExecutionStatus.SUBMITTED
        if is_submitted and before.status is not ExecutionStatus.SUBMITTED:
            begin = recorded.sequence
        elif not is_submitted and before.status is ExecutionStatus.SUBMITTED:
            waits.append((begin, recorded.sequence))
    if state.status is ExecutionStatus.SUBMITTED:
        waits.append((begin, sequence + 1))
    return waits
