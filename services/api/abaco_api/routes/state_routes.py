"""Operations on an actor's state: show and replace."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import PAST, Operation, Repeated
from abaco_api.contract.result_types import StateResult
from abaco_api.dependencies import Service
from abaco_api.domain import views
from abaco_api.http.parameters import (
    checked_actor_id,
    nothing_else,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_api.queries.freshness import ALL_ACTORS
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


async def show(api: Service, request: Request) -> Response:
    """The state, and how often it was set."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    models = await api.as_of(request, actor_id)
    row = await models.actor(actor_id)
    return success(views.state(row), "Actor state retrieved successfully.")


async def replace(api: Service, request: Request, cause: Cause) -> Response:
    """Replace the state."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    outcome = await api.actors.change(parse.set_state(actor_id, parameters), cause)
    api.freshness.wrote(outcome.sequence, actor_id, ALL_ACTORS)
    [event] = outcome.events
    return _replaced(event, outcome.sequence)


async def replaced(_: Service, __: Request, recorded: Recorded) -> Response:
    """The response to a repeated replacement of the state."""
    return _replaced(recorded.event, recorded.sequence)


def _replaced(event: ev.Event, sequence: int) -> Response:
    assert isinstance(event, ev.ActorStateSet)
    result = StateResult(state=event.state, version=event.version)
    return success(result, "Actor state updated successfully.", sequence=sequence)


OPERATIONS = (
    Operation(
        method="GET",
        path="/actors/{actor_id}/state",
        endpoint=show,
        kind="query",
        summary="Show an actor's state",
        result=StateResult,
        query=PAST,
    ),
    Operation(
        method="POST",
        path="/actors/{actor_id}/state",
        endpoint=replace,
        kind="command",
        summary="Replace an actor's state",
        result=StateResult,
        body=request_schemas.State,
        repeated=Repeated(event=ev.ActorStateSet, response=replaced),
    ),
)
