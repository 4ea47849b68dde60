"""Operations on actors: register, list, show, change, delete."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import PAST, Operation, Repeated, paging
from abaco_api.contract.result_types import ActorResult
from abaco_api.dependencies import Service
from abaco_api.domain import views
from abaco_api.domain.commands import DeleteActor
from abaco_api.domain.views import Row
from abaco_api.http.paged_response import link_next, page
from abaco_api.http.parameters import (
    MAX_LIMIT,
    checked_actor_id,
    nothing_else,
    parse_page,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_api.queries.freshness import ALL_ACTORS
from abaco_proto import events as ev
from abaco_proto.actor import INITIAL, Actor, evolve
from abaco_proto.envelope import Recorded


async def register(api: Service, request: Request, cause: Cause) -> Response:
    """Register an image as an actor."""
    nothing_else(query_parameters(request))
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    outcome = await api.actors.register(parse.register(parameters, api.defaults), cause)
    return _registered(api, outcome.actor, outcome.sequence)


async def registered(api: Service, _: Request, recorded: Recorded) -> Response:
    """The response to a repeated registration."""
    return _registered(api, evolve(INITIAL, recorded), recorded.sequence)


def _registered(api: Service, actor: Actor, sequence: int) -> Response:
    return _changed(api, actor, sequence, "Actor created successfully.", status=201)


async def list_actors(api: Service, request: Request) -> Response:
    """The actors that you may read, in the order of their registration.

    A page ends at `limit` actors, or after the one that makes it longer than 8 MiB. If there
    are more, the header Link has the address of the next page, and Abaco-Next its `offset`.
    """
    query = query_parameters(request)
    wanted = parse_page(query, AS_OF, default=MAX_LIMIT)
    models = await api.as_of(request)
    only = await api.access.readable(request.state.principal)

    async def fetch(after_row: Row | None, limit: int) -> Sequence[Row]:
        offset = wanted.offset if after_row is None else 0
        return await models.actors(limit, offset, after_row=after_row, only=only)

    msg = "Actors retrieved successfully."
    response, read = await page(fetch, views.actor, wanted.limit, long=api.long_responses, msg=msg)
    if read.more:
        link_next(response, request, query, offset=wanted.offset + read.count)
    return response


async def show(api: Service, request: Request) -> Response:
    """One actor."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    models = await api.as_of(request, actor_id)
    row = await models.actor(actor_id)
    return success(views.actor(row), "Actor retrieved successfully.")


async def update(api: Service, request: Request, cause: Cause) -> Response:
    """Change a definition; parameters that are absent keep their values. Clears an error."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    outcome = await api.actors.change(parse.update(actor_id, parameters, api.defaults), cause)
    return _changed(api, outcome.actor, outcome.sequence, "Actor updated successfully.")


async def delete(api: Service, request: Request, cause: Cause) -> Response:
    """Delete an actor. Its waiting messages never run, and its running executions are halted.

    Its executions and their output can still be read, each by its id.
    """
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    outcome = await api.actors.change(DeleteActor(actor_id=actor_id), cause)
    api.freshness.wrote(outcome.sequence, actor_id, ALL_ACTORS)
    return success(None, "Actor deleted successfully.", sequence=outcome.sequence)


def _changed(api: Service, actor: Actor, sequence: int, msg: str, *, status: int = 200) -> Response:
    api.freshness.wrote(sequence, actor.actor_id, ALL_ACTORS)
    return success(views.actor_of_fold(actor), msg, status=status, sequence=sequence)


OPERATIONS = (
    Operation(
        method="POST",
        path="/actors",
        endpoint=register,
        kind="command",
        summary="Register an actor",
        result=ActorResult,
        status=201,
        errors=(403,),
        body=request_schemas.Registration,
        repeated=Repeated(event=ev.ActorRegistered, response=registered),
    ),
    Operation(
        method="GET",
        path="/actors",
        endpoint=list_actors,
        kind="query",
        summary="List the actors",
        result=list[ActorResult],
        query=(*paging(MAX_LIMIT, MAX_LIMIT), *PAST),
    ),
    Operation(
        method="GET",
        path="/actors/{actor_id}",
        endpoint=show,
        kind="query",
        summary="Show an actor",
        result=ActorResult,
        query=PAST,
    ),
    Operation(
        method="PUT",
        path="/actors/{actor_id}",
        endpoint=update,
        kind="command",
        summary="Change an actor",
        result=ActorResult,
        body=request_schemas.Update,
    ),
    Operation(
        method="DELETE",
        path="/actors/{actor_id}",
        endpoint=delete,
        kind="command",
        summary="Delete an actor",
        result=None,
    ),
)
