"""Operations on workers: list, show, scale, stop."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import PAST, Operation, Repeated
from abaco_api.contract.result_types import ScaleResult, WorkerResult
from abaco_api.dependencies import Service
from abaco_api.domain import views
from abaco_api.domain.commands import StopWorker
from abaco_api.http.parameters import (
    checked_actor_id,
    checked_worker_id,
    nothing_else,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_api.queries.freshness import ALL_ACTORS
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


async def list_workers(api: Service, request: Request) -> Response:
    """The workers that take a slot now."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    models = await api.as_of(request, actor_id)
    rows = await models.workers(actor_id)
    return success([views.worker(row) for row in rows], "Workers retrieved successfully.")


async def scale(api: Service, request: Request, cause: Cause) -> Response:
    """Set the minimum number of workers."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    outcome = await api.actors.change(parse.scale(actor_id, parameters), cause)
    api.freshness.wrote(outcome.sequence, actor_id, ALL_ACTORS)
    return _scaled(actor_id, outcome.actor.definition, outcome.sequence)


async def scaled(_: Service, __: Request, recorded: Recorded) -> Response:
    """The response to a repeated scaling."""
    event = recorded.event
    assert isinstance(event, ev.ActorUpdated)
    return _scaled(event.actor_id, event.definition, recorded.sequence)


def _scaled(actor_id: str, definition: ev.Definition, sequence: int) -> Response:
    result = ScaleResult(
        actor_id=actor_id,
        min_workers=definition.min_workers,
        max_workers=definition.max_workers,
    )
    return success(result, "Workers scheduled successfully.", sequence=sequence)


async def show(api: Service, request: Request) -> Response:
    """One worker, stopped or not."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    worker_id = checked_worker_id(actor_id, request.path_params["worker_id"])
    models = await api.as_of(request, actor_id)
    row = await models.worker(actor_id, worker_id)
    return success(views.worker(row), "Worker retrieved successfully.")


async def stop(api: Service, request: Request, cause: Cause) -> Response:
    """Stop a worker as soon as it is idle."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    worker_id = checked_worker_id(actor_id, request.path_params["worker_id"])
    sequence = await api.workers.stop(StopWorker(actor_id=actor_id, worker_id=worker_id), cause)
    api.freshness.wrote(sequence, actor_id)
    return success(None, "Worker scheduled to be stopped.", sequence=sequence)


OPERATIONS = (
    Operation(
        method="GET",
        path="/actors/{actor_id}/workers",
        endpoint=list_workers,
        kind="query",
        summary="List an actor's workers",
        result=list[WorkerResult],
        query=PAST,
    ),
    Operation(
        method="POST",
        path="/actors/{actor_id}/workers",
        endpoint=scale,
        kind="command",
        summary="Keep a number of workers",
        result=ScaleResult,
        body=request_schemas.Scale,
        repeated=Repeated(event=ev.ActorUpdated, response=scaled),
    ),
    Operation(
        method="GET",
        path="/actors/{actor_id}/workers/{worker_id}",
        endpoint=show,
        kind="query",
        summary="Show a worker",
        result=WorkerResult,
        query=PAST,
    ),
    Operation(
        method="DELETE",
        path="/actors/{actor_id}/workers/{worker_id}",
        endpoint=stop,
        kind="command",
        summary="Stop a worker",
        result=None,
        errors=(409,),
    ),
)
