"""Probes: whether the process lives, and whether all it needs is there."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.contract.operation import Operation
from abaco_api.contract.result_types import ReadinessResult
from abaco_api.dependencies import Service
from abaco_api.http.readiness import readiness, ready, wrong
from abaco_api.http.response_envelope import failure, success


async def healthz(_: Service, __: Request) -> Response:
    """The process lives."""
    return success(None, "alive")


async def readyz(api: Service, _: Request) -> Response:
    """Every part is as it should be, or which is not."""
    found = await readiness(api.log, api.models, api.directory, max_lag=api.settings.max_lag_events)
    if ready(found):
        return success(found, "ready")
    msg = f"not ready: {', '.join(wrong(found))}"
    return failure(503, "not_ready", msg, result=found, headers={"Retry-After": "1"})


OPERATIONS = (
    Operation(
        method="GET",
        path="/healthz",
        endpoint=healthz,
        kind="probe",
        summary="Whether the process lives",
        result=None,
    ),
    Operation(
        method="GET",
        path="/readyz",
        endpoint=readyz,
        kind="probe",
        summary="Whether everything it needs is there",
        result=ReadinessResult,
        unready=ReadinessResult,
    ),
)
