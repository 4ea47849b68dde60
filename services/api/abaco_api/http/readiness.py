"""Readiness: whether each part that the api depends on works, or why not."""

import asyncio

import msgspec

from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.contract.result_types import ReadinessResult
from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import all_events_filter

OK = "ok"
UNKNOWN = "cannot be told"


async def readiness(
    log: EventLog, models: ReadModels, directory: ActorDirectory, *, max_lag: int
) -> ReadinessResult:
    """Check every part, each with its own timeout."""
    head, checkpoint = await asyncio.gather(_head(log), _checkpoint(models))
    return ReadinessResult(
        nats=head if isinstance(head, str) else OK,
        postgres=checkpoint if isinstance(checkpoint, str) else OK,
        projector=_lag(head, checkpoint, max_lag),
        actors=OK if directory.caught_up.is_set() else "the definitions are still being read",
    )


def problems(result: ReadinessResult) -> list[str]:
    """The parts that do not work, each with the reason."""
    parts = msgspec.structs.asdict(result)
    return [f"{name}: {state}" for name, state in parts.items() if state != OK]


def _lag(head: int | str, checkpoint: int | str, max_lag: int) -> str:
    if isinstance(head, str) or isinstance(checkpoint, str):
        return UNKNOWN
    if head - checkpoint > max_lag:
        return f"{head - checkpoint} events behind, at most {max_lag}"
    return OK


async def _head(log: EventLog) -> int | str:
    try:
        last = await log.last(all_events_filter())
    except Unavailable as error:
        return str(error)
    return last.sequence if last is not None else 0


async def _checkpoint(models: ReadModels) -> int | str:
    try:
        return await models.checkpoint()
    except Unavailable as error:
        return str(error)
