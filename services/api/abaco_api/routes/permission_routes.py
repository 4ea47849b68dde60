"""Operations on permissions: list the levels on an actor, and set one."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import Operation, Repeated
from abaco_api.dependencies import Service
from abaco_api.http.parameters import (
    checked_actor_id,
    nothing_else,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.events import PermissionLevel


async def list_permissions(api: Service, request: Request) -> Response:
    """The level of each user on an actor; ABACO_WORLD is every user of the tenant."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    await api.directory.find(actor_id)
    levels = dict(await api.access_directory.permissions(actor_id))
    return success(levels, "Permissions retrieved successfully.")


async def set_permission(api: Service, request: Request, cause: Cause) -> Response:
    """Set the level of a user, or of ABACO_WORLD, on an actor; NONE revokes it."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    body = parse.permission(parameters)
    sequence = await api.access_commands.set_permission(actor_id, body.user, body.level, cause)
    levels = dict(await api.access_directory.permissions(actor_id))
    return _set(levels, sequence)


async def repeated_set(api: Service, request: Request, recorded: Recorded) -> Response:
    """The response to a repeated request: the levels as they are now."""
    levels = await api.access_directory.permissions(request.path_params["actor_id"])
    return _set(dict(levels), recorded.sequence)


def _set(levels: dict[str, PermissionLevel], sequence: int) -> Response:
    return success(levels, "Permission added successfully.", sequence=sequence)


OPERATIONS = (
    Operation(
        method="GET",
        path="/actors/{actor_id}/permissions",
        endpoint=list_permissions,
        kind="query",
        summary="List the permissions on an actor",
        result=dict[str, PermissionLevel],
    ),
    Operation(
        method="POST",
        path="/actors/{actor_id}/permissions",
        endpoint=set_permission,
        kind="command",
        summary="Set a user's permission on an actor",
        result=dict[str, PermissionLevel],
        body=request_schemas.Permission,
        errors=(409,),
        repeated=Repeated(event=ev.PermissionSet, response=repeated_set),
    ),
)
