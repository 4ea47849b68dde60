"""Probes: whether the process is alive, and whether all that it depends on works."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.contract.operation import Operation
from abaco_api.contract.result_types import ReadinessResult
from abaco_api.dependencies import Service
from abaco_api.http.readiness import problems, readiness
from abaco_api.http.response_envelope import failure, success


async def healthz(_: Service, __: Request) -> Response:
    """Answers 200 as long as the process runs."""
    return success(None, "alive")


async def readyz(api: Service, _: Request) -> Response:
    """Answers 200 if every part works, or 503 with the parts that do not."""
    result = await readiness(
        api.log, api.models, api.directory, max_lag=api.settings.max_lag_events
    )
    failing = problems(result)
    if not failing:
        return success(result, "ready")
    msg = f"not ready: {', '.join(failing)}"
    return failure(503, "not_ready", msg, result=result, headers={"Retry-After": "1"})


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
        result=ReadinessResult,
        unready=ReadinessResult,
    ),
)
