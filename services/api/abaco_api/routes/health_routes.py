"""Probes: whether the process is alive, and whether all that it depends on works."""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from abaco_api.contract.operation import Operation
from abaco_api.contract.result_types import ReadinessResult
from abaco_api.dependencies import Service
from abaco_api.http.response_envelope import failure, success
from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter

OK = "ok"
UNKNOWN = "cannot be told"


async def healthz(_: Service, __: Request) -> Response:
    """Answers 200 as long as the process runs."""
    return success(None, "alive")


async def readyz(api: Service, request: Request) -> Response:
    """Answers 200 if every part works, or 503.

    Which part does not work is in the answer to those to whom ABACO_PUBLISH_READINESS shows it.
    """
    head, checkpoint = await asyncio.gather(_head(api.log), _checkpoint(api.models))
    result = ReadinessResult(
        nats=head if isinstance(head, str) else OK,
        postgres=checkpoint if isinstance(checkpoint, str) else OK,
        projector=_lag(head, checkpoint, api.settings.max_lag_events),
        actors=OK if api.directory.caught_up.is_set() else "the definitions are still being read",
    )
    parts = msgspec.structs.asdict(result)
    failing = [f"{name}: {state}" for name, state in parts.items() if state != OK]
    is_shown = await api.access.may_see(request, api.settings.publish_readiness)
    shown = result if is_shown else None
    if not failing:
        return success(shown, "ready")
    msg = f"not ready: {', '.join(failing)}" if is_shown else "not ready"
    return failure(503, "not_ready", msg, result=shown, headers={"Retry-After": "1"})


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


OPERATIONS = (
    Operation(
        method="GET",
        path="/healthz",
        endpoint=healthz,
        kind="probe",
        summary="Check that the process is alive",
        result=None,
    ),
    Operation(
        method="GET",
        path="/readyz",
        endpoint=readyz,
        kind="probe",
        summary="Check that everything it depends on works",
        result=ReadinessResult | None,
        unready=ReadinessResult,
    ),
)
